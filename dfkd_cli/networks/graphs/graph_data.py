"""A trainable graph as data for JSON, and back. Names in a file are looked up in tables, never executed as code."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Size, Tensor, fx, nn

from dfkd_cli.errors import TeacherError, first_line
from dfkd_cli.networks.graphs.graph_operations import ALLOWED, METHODS, OPERATIONS, operation_name
from dfkd_cli.networks.graphs.graph_trial import check_shapes
from dfkd_cli.networks.graphs.graph_values import decode, encode, read_number
from dfkd_cli.networks.graphs.layer_graph import is_free_name
from dfkd_cli.networks.graphs.layers import LAYERS, build_layer, layer_options

_VERSION = 1
_MOST_NODES = 20_000


def to_data(module: fx.GraphModule) -> dict[str, Any]:
    """Return the graph, its layers without their sizes, and the names of its tensors.

    With the module's state dict `from_data` makes the same module again. Raises ValueError for a graph that
    `trainable_module` did not make.
    """
    shared: dict[int, str] = {}
    tied = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        first = shared.setdefault(id(parameter), name)
        if first != name:
            tied[name] = first
    indices = {node: index for index, node in enumerate(module.graph.nodes)}
    layers = {str(node.target) for node in indices if node.op == "call_module"}
    return {
        "version": _VERSION,
        "input_size": list(module.meta["input_size"]),
        "layers": [_layer_data(name, layer) for name, layer in module.named_modules() if name in layers],
        "tied": tied,
        "nodes": [_node_data(node, indices, module) for node in indices],
    }


def _layer_data(name: str, layer: nn.Module) -> dict[str, Any]:
    kind, options = layer_options(layer)
    return {"name": name, "type": kind, "options": {key: encode(value, {}) for key, value in options.items()}}


def _node_data(node: fx.Node, indices: dict[fx.Node, int], module: fx.GraphModule) -> dict[str, Any]:
    if node.op == "placeholder":
        return {"op": "images"}
    if node.op == "get_attr":
        learned = any(name == node.target for name, _ in module.named_parameters(remove_duplicate=False))
        return {"op": "parameter" if learned else "buffer", "name": node.target}
    if node.op == "output":
        return {"op": "logits", "args": encode(list(node.args), indices)}
    if node.op == "call_module":
        return {"op": "layer", "name": node.target, "args": encode(list(node.args), indices)}
    name = operation_name(node.target)
    if name not in ALLOWED:
        raise ValueError(f"{node.target} is not among the operations of a student")
    arguments = node.args[:1] if name == "device" else node.args
    data = {"op": name, "args": encode(list(arguments), indices)}
    if node.kwargs:
        data["kwargs"] = {key: encode(value, indices) for key, value in node.kwargs.items()}
    return data


def from_data(data: Any, state_dict: Mapping[str, Tensor]) -> fx.GraphModule:
    """Return the module of `to_data` with the tensors of `state_dict`, in training mode.

    `data` may come from a stranger. Every name in it is checked against a table, and the graph is run once on the meta
    device, which computes only shapes. Raises TeacherError for anything unknown, dangling, contradictory or absurdly
    large.
    """
    try:
        return _Builder(data, state_dict).build()
    except TeacherError as error:
        raise TeacherError(f"the student's graph cannot be used: {error}") from error
    except Exception as error:  # what is missing, of another type or shape can fail in any way, also inside of torch
        raise TeacherError(
            f"the student's graph cannot be used: {type(error).__name__}: {first_line(error)}"
        ) from error


class _Builder:
    """Builds one module, checking what it reads."""

    def __init__(self, data: Any, state_dict: Mapping[str, Tensor]):
        _require(isinstance(data, dict) and data.get("version") == _VERSION, "it is of an unknown version")
        _require(type(data["nodes"]) is list and len(data["nodes"]) <= _MOST_NODES, "it has too many nodes")
        _require(type(data["layers"]) is list and len(data["layers"]) <= _MOST_NODES, "it has too many layers")
        _require(type(data["tied"]) is dict, "its tied weights are no dictionary")
        _require(all(isinstance(tensor, Tensor) for tensor in state_dict.values()), "a weight is no tensor")
        self.data = data
        self.state = state_dict
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.nodes: list[fx.Node] = []
        self.shapes: dict[str, dict[str, Size]] = defaultdict(dict)  # by layer
        for name, tensor in state_dict.items():
            layer, _, own = name.rpartition(".")
            self.shapes[layer][own] = tensor.shape
        self.layers: set[str] = set()
        self.tensors: set[str] = set()

    def build(self) -> fx.GraphModule:
        for layer in self.data["layers"]:
            self._add_layer(layer)
        for node in self.data["nodes"]:
            self.nodes.append(self._add_node(node))
        kinds = [node.op for node in self.graph.nodes]
        _require(kinds.count("placeholder") == 1 and kinds[0] == "placeholder", "it needs one input, the first node")
        _require(kinds.count("output") == 1 and kinds[-1] == "output", "it needs one output, the last node")
        module = fx.GraphModule(self.root, self.graph)
        module.meta["input_size"] = self._input_size()
        check_shapes(module, module.meta["input_size"])
        self._load(module)
        return module.train()

    def _input_size(self) -> tuple[int, ...]:
        size = self.data["input_size"]
        _require(type(size) is list and len(size) == 3, "its input size is not [C, H, W]")
        return tuple(read_number(length, 1, 2**16) for length in size)

    def _add_layer(self, layer: dict[str, Any]) -> None:
        name, kind = layer["name"], layer["type"]
        _require(type(kind) is str and kind in LAYERS, f"the layer {_shown(kind)} is not allowed")
        options = {key: decode(value, []) for key, value in layer["options"].items()}
        _require(sorted(options) == sorted(LAYERS[kind].options), f"a {kind} has other options")
        parent = self._place(name, self.layers)
        parent.add_module(name.rpartition(".")[2], build_layer(kind, options, self.shapes.get(name, {})))

    def _place(self, name: Any, taken: set[str]) -> nn.Module:
        """Return the module that holds this new name; raise TeacherError when the name is unsafe or in use."""
        _require(
            type(name) is str and len(name) <= 200 and is_free_name(name), f"the name {_shown(name)} is not allowed"
        )
        module = self.root
        parts = name.split(".")
        for place, part in enumerate(parts[:-1]):
            _require(".".join(parts[: place + 1]) not in self.layers, f"the name {name} is inside of a layer")
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        _require(not hasattr(module, parts[-1]), f"the name {name} is used twice")
        taken.add(name)
        return module

    def _add_node(self, node: dict[str, Any]) -> fx.Node:
        op = node["op"]
        _require(type(op) is str, "a node has no operation")
        if op == "images":
            return self.graph.placeholder("images")
        if op in ("parameter", "buffer"):
            return self._add_tensor(node["name"], op == "parameter")
        args = decode(node["args"], self.nodes)
        _require(type(args) is list, "a node's arguments are no list")
        if op == "logits":
            _require(len(args) == 1 and isinstance(args[0], fx.Node), "its output is not one tensor")
            return self.graph.output(args[0])
        if op == "layer":
            name = node["name"]
            _require(type(name) is str and name in self.layers, f"the layer {_shown(name)} does not exist")
            _require(len(args) == 1 and isinstance(args[0], fx.Node), f"the layer {name} takes one tensor")
            return self.graph.call_module(name, tuple(args))
        _require(op in ALLOWED, f"the operation {_shown(op)} is not allowed")
        if op == "device":
            _require(len(args) == 1, "a device is that of one tensor")
            return self.graph.call_function(getattr, (args[0], "device"))
        kwargs = {key: decode(value, self.nodes) for key, value in node.get("kwargs", {}).items()}
        _check_keywords(op, kwargs)
        if op in METHODS:
            return self.graph.call_method(op, tuple(args))
        return self.graph.call_function(OPERATIONS[op], tuple(args), kwargs)

    def _add_tensor(self, name: Any, learned: bool) -> fx.Node:
        if not (type(name) is str and name in self.tensors):
            parent, last = self._place(name, self.tensors), name.rpartition(".")[2]
            tensor = self.state[name].to("meta")
            if learned:
                parent.register_parameter(last, nn.Parameter(tensor))
            else:
                parent.register_buffer(last, tensor)
        return self.graph.get_attr(name)

    def _load(self, module: fx.GraphModule) -> None:
        own = module.state_dict()
        _require(own.keys() == self.state.keys(), "its weights have other names than the file's")
        for name, tensor in own.items():
            _require(tensor.dtype == self.state[name].dtype, f"the weight {name} has another type of numbers")
        copies = {name: tensor.detach().clone() for name, tensor in self.state.items()}
        module.load_state_dict(copies, assign=True)
        parameters = dict(module.named_parameters(remove_duplicate=False))
        for name, first in self.data["tied"].items():
            kept = parameters[first]
            _require(torch.equal(kept, parameters[name]), f"the tied weights {name} and {first} differ")
            parent, _, last = name.rpartition(".")
            module.get_submodule(parent).register_parameter(last, kept)


def _check_keywords(op: str, kwargs: dict[str, Any]) -> None:
    if not kwargs:
        return
    schema = getattr(OPERATIONS.get(op), "_schema", None)
    known = set() if schema is None else {argument.name for argument in schema.arguments}
    _require(kwargs.keys() <= known, f"{op} has no argument {_shown(next(iter(kwargs.keys() - known), None))}")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise TeacherError(otherwise)


def _shown(value: Any) -> str:
    return repr(value)[:60] if type(value) in (str, int, float, type(None)) else f"of type {type(value).__name__}"
