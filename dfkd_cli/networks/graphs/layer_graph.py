"""Rewrites a traced graph so that its weights are those of ordinary layers."""

import keyword
import re
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from dfkd_cli.networks.graphs.layer_calls import FIRST_RESULTS, LayerCall, arguments_by_name, aten, find_layer_call
from dfkd_cli.networks.graphs.layers import build_layer

_NAME = re.compile(r"([A-Za-z]\w*|\d+)(\.([A-Za-z]\w*|\d+))*", re.ASCII)
_TRANSPOSITIONS = {aten.t.default, aten.numpy_T.default}
_PLAIN = fx.GraphModule(nn.Module(), fx.Graph())


def is_free_name(name: str) -> bool:
    """Return whether a layer or tensor can have this dotted name: no part of it is an attribute of every module."""
    parts = name.split(".")
    return bool(_NAME.fullmatch(name)) and not any(keyword.iskeyword(part) or hasattr(_PLAIN, part) for part in parts)


def remove_unused(graph: fx.Graph) -> None:
    """Remove nodes whose results are not used; `fx.Graph.eliminate_dead_code` needs a module with all the layers."""
    for node in reversed(list(graph.nodes)):
        changes_input = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
        if not node.users and node.op not in ("placeholder", "output") and not changes_input:
            graph.erase_node(node)


class Weight(NamedTuple):
    """A tensor that does not depend on the images."""

    value: Tensor
    name: str | None  # in the network; None when it was computed or recorded
    learned: bool


class LayerGraph:
    """The module under construction: `replace_layers`, then `keep_tensors`; the result is `root` with `graph`."""

    def __init__(self, traced: fx.GraphModule, network: nn.Module):
        self.graph = fx.Graph()  # without an owner, which would look for the new layers in itself
        self.graph.output(self.graph.graph_copy(traced.graph, {}))
        self.root = nn.Module()
        self._traced = traced
        self._names = _names_by_memory(network)
        self._parameters: dict[Any, nn.Parameter] = {}  # the same weight in two layers stays one parameter
        self._layers: dict[Any, str] = {}
        self._taken: set[str] = set()
        self._counts: Counter[str] = Counter()
        # Also keeps the tensors alive, whose addresses are their keys.
        self._values: dict[fx.Node, Weight | None] = {}

    def replace_layers(self) -> None:
        """Replace every operation that takes weights and has a layer by the call of that layer."""
        for node in list(self.graph.nodes):
            call = find_layer_call(node)
            if call is not None and (weights := self._weights(call)) is not None:
                after = _added_bias(node, call) if call.transposed else None
                if after is not None and (bias := self._weight(after.args[1])) is not None:
                    call.tensors["bias"] = after.args[1]
                    weights["bias"] = bias
                    self._replace(after, call, weights)
                else:
                    self._replace(node, call, weights)
        remove_unused(self.graph)

    def keep_tensors(self) -> None:
        """Copy the tensors that no layer holds to the root, as parameters where they were learned, else as buffers."""
        kept: dict[Any, str] = {}
        for node in self.graph.nodes:
            if node.op == "get_attr":
                weight = self._weight(node)
                assert weight is not None
                key = _key(weight.value)
                if key not in kept:
                    kept[key] = self._keep(key, weight)
                node.target = kept[key]

    def _weights(self, call: LayerCall) -> dict[str, Weight] | None:
        """Return the layer's tensors; None when one of them depends on the images."""
        weights = {name: self._weight(node) for name, node in call.tensors.items()}
        found = {name: weight for name, weight in weights.items() if weight is not None}
        return found if len(found) == len(weights) else None

    def _weight(self, node: Any) -> Weight | None:
        """Return the value of a node, computed if it has to be; None when it depends on the images."""
        if not isinstance(node, fx.Node):
            return None
        if node not in self._values:
            self._values[node] = self._evaluate(node)
        return self._values[node]

    def _evaluate(self, node: fx.Node) -> Weight | None:
        if node.op == "get_attr":
            value = _attribute(self._traced, str(node.target)).detach()
            name, learned = self._names.get(_key(value), (None, False))
            return Weight(value, name, learned)
        inputs = {source: self._weight(source) for source in node.all_input_nodes}
        if node.op != "call_function" or not inputs or None in inputs.values():
            return None
        values: Any = {source: weight.value for source, weight in inputs.items() if weight is not None}
        target: Any = node.target
        args: Any = map_arg(node.args, values.__getitem__)
        kwargs: Any = map_arg(node.kwargs, values.__getitem__)
        with torch.no_grad():
            value = target(*args, **kwargs)
        if not isinstance(value, Tensor):
            return None
        return Weight(value, None, any(weight is not None and weight.learned for weight in inputs.values()))

    def _replace(self, node: fx.Node, call: LayerCall, weights: dict[str, Weight]) -> None:
        if call.transposed:
            weights = self._upright(call, weights)
        keys = tuple((name, _key(weight.value)) for name, weight in weights.items())
        # A dropout layer has no weights: every call gets a layer of its own.
        key = (call.kind, str(sorted(call.options.items())), keys) if weights else node
        if key not in self._layers:
            self._layers[key] = self._add_layer(call, weights)
        with self.graph.inserting_before(node):
            called = self.graph.create_node("call_module", self._layers[key], (call.source,))
        called.meta["val"] = node.meta["val"]
        if node.target in FIRST_RESULTS:
            called.meta["val"] = node.meta["val"][0]
            for user in list(node.users):
                if user.args[1] == 0:
                    user.replace_all_uses_with(called)
                    self.graph.erase_node(user)
        else:
            node.replace_all_uses_with(called)
        if not node.users:
            self.graph.erase_node(node)

    def _upright(self, call: LayerCall, weights: dict[str, Weight]) -> dict[str, Weight]:
        """Return the weights of a product x @ W as those of a linear layer, [out, in]."""
        node = call.tensors["weight"]
        original = self._weight(node.args[0]) if _is_transposition(node) else None
        weight = original or weights["weight"]._replace(value=weights["weight"].value.t())
        return weights | {"weight": weight}

    def _add_layer(self, call: LayerCall, weights: dict[str, Weight]) -> str:
        values = {name: weight.value for name, weight in weights.items()}
        if "running_mean" in values:
            values["num_batches_tracked"] = values["running_mean"].new_zeros((), dtype=torch.long)
        layer = build_layer(call.kind, call.options, {name: value.shape for name, value in values.items()})
        for name, value in values.items():
            if name in layer._parameters:
                key = _key(value)
                if key not in self._parameters:
                    self._parameters[key] = nn.Parameter(_copy(value))
                layer.register_parameter(name, self._parameters[key])
            else:
                layer.register_buffer(name, _copy(value))
        named = next((weight.name for weight in weights.values() if weight.name is not None), None)
        name = self._free_name(None if named is None else named.rpartition(".")[0], call.kind.lower())
        self._parent(name).add_module(name.rpartition(".")[2], layer)
        return name

    def _parent(self, name: str) -> nn.Module:
        module = self.root
        for part in name.split(".")[:-1]:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module

    def _keep(self, key: Any, weight: Weight) -> str:
        learned = weight.learned and weight.value.is_floating_point()
        name = self._free_name(weight.name, "parameter" if learned else "buffer")
        parent, last = self._parent(name), name.rpartition(".")[2]
        if learned:
            if key not in self._parameters:
                self._parameters[key] = nn.Parameter(_copy(weight.value))
            parent.register_parameter(last, self._parameters[key])
        else:
            parent.register_buffer(last, _copy(weight.value))
        return name

    def _free_name(self, wanted: str | None, kind: str) -> str:
        """Return the name in the network where it is still free, else a counted one."""
        if not wanted or not is_free_name(wanted) or any(_nested(wanted, other) for other in self._taken):
            while True:
                self._counts[kind] += 1
                wanted = f"{kind}_{self._counts[kind]}"
                if not any(_nested(wanted, other) for other in self._taken):
                    break
        self._taken.add(wanted)
        return wanted


def _nested(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _key(tensor: Tensor) -> Any:
    """Return what two views of the same numbers have in common, and no other tensors."""
    if not tensor.numel():
        return id(tensor)
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _names_by_memory(network: nn.Module) -> dict[Any, tuple[str, bool]]:
    """Return the name in the network, and whether it is a parameter, of every tensor by its `_key`."""
    names: dict[Any, tuple[str, bool]] = {}
    for tensors, learned in ((network.named_parameters(), True), (network.named_buffers(), False)):
        for name, tensor in tensors:
            own = name.removeprefix("module.")
            # The constants of a frozen archive have no names of their own.
            names.setdefault(_key(tensor), ("" if own.startswith("constant_") else own, learned))
    return names


def _attribute(module: nn.Module, name: str) -> Tensor:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _is_transposition(node: fx.Node) -> bool:
    if node.target in _TRANSPOSITIONS:
        return True
    if node.target is aten.transpose.int:
        return sorted((node.args[1] % 2, node.args[2] % 2)) == [0, 1]  # type: ignore[operator]
    return node.target is aten.permute.default and [axis % 2 for axis in node.args[1]] == [1, 0]  # type: ignore[union-attr, operator]


def _added_bias(node: fx.Node, call: LayerCall) -> fx.Node | None:
    """Return the addition of a vector to the product x @ W, when it is the only use of the product."""
    if "bias" in call.tensors or len(node.users) != 1:
        return None
    (user,) = node.users
    if user.target not in (aten.add.Tensor, aten.add_.Tensor) or user.args[0] is not node:
        return None
    other = user.args[1]
    if not isinstance(other, fx.Node) or arguments_by_name(user)["alpha"] != 1:
        return None
    return user if other.meta["val"].shape == node.meta["val"].shape[-1:] else None
