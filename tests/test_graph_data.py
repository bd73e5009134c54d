"""Tests of trainable graphs as data, also of data made by strangers."""

import copy
import json
import math
from typing import Any

import pytest
import torch
import torch_pruning
from archive_networks import archive, make_network
from torch import fx, nn

from dfkd_cli.errors import TeacherError
from dfkd_cli.networks.graphs.graph_data import from_data, to_data
from dfkd_cli.networks.graphs.graph_operations import OPERATIONS
from dfkd_cli.networks.graphs.graph_values import decode, encode
from dfkd_cli.networks.graphs.trainable import trainable_module

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated"),
    pytest.mark.filterwarnings("ignore:Unwrapped parameters detected"),
]


@pytest.fixture(scope="module")
def modules() -> dict[str, Any]:
    """Trainable modules by the names of their networks."""
    made = {}
    for name in ("grouped", "weights", "efficientnet_b0"):
        original, size = make_network(name)
        made[name] = trainable_module(archive(original, size, "dynamic"), size)
    return made


@pytest.fixture
def hostile(modules) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The data of a small network, to be changed, and its weights."""
    return to_data(modules["grouped"]), modules["grouped"].state_dict()


def _again(module: Any) -> Any:
    return from_data(json.loads(json.dumps(to_data(module))), module.state_dict())


@pytest.mark.parametrize("name", ["grouped", "weights", "efficientnet_b0"])
def test_a_module_comes_back_the_same(modules, name):
    module = modules[name]
    images = torch.rand(3, *module.meta["input_size"])
    again = _again(module)
    assert again.training
    assert torch.equal(again.eval()(images), module.eval()(images))
    assert [key for key, _ in again.named_parameters()] == [key for key, _ in module.named_parameters()]
    assert to_data(again) == to_data(module)
    assert len(json.dumps(to_data(module))) < 200_000


def test_a_narrowed_module_comes_back_with_its_own_sizes(modules):
    module = copy.deepcopy(modules["grouped"]).eval()
    images = torch.rand(1, *module.meta["input_size"])
    graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=images)
    graph.get_pruning_group(module.dilated, torch_pruning.prune_conv_out_channels, idxs=[0, 3, 5]).prune()
    again = _again(module)
    assert again.dilated.out_channels == again.last.in_channels == 9
    assert torch.equal(again.eval()(images), module(images))


def test_arguments_come_back_the_same():
    node = fx.Graph().placeholder("images")
    values = [None, True, 3, 0.5, math.inf, -math.inf, "same", (1, [node, 2]), torch.float16, torch.channels_last]
    values += [torch.strided, slice(0, None, 2), 2**63 - 1]
    written = json.loads(json.dumps(encode(values, {node: 0}), allow_nan=False))
    assert decode(written, [node]) == values
    assert math.isnan(decode(encode(math.nan, {}), []))


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _call(op: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"op": op, "args": list(args), "kwargs": kwargs}


IMAGES = {"node": 0}
BAD_NODES = {
    "unknown operation": _call("os.system", "ls"),
    "an operation of torch that reads files": _call("from_file", "same"),
    "attribute of another name": _call("device", IMAGES, "same"),
    "method of another name": _call("__reduce__", IMAGES),
    "free text": _call("relu", "__import__('os')"),
    "text as a tag": _call("relu", {"__class__": "same"}),
    "keyword that is code": _call("relu", IMAGES, **{"x=__import__('os')": 1}),
    "keyword of a builtin": _call("item", IMAGES, 0, key=1),
    "dangling reference": _call("relu", {"node": 400}),
    "negative reference": _call("relu", {"node": -1}),
    "reference that is no number": _call("relu", {"node": True}),
    "nested too deeply": _call("zeros", _nested(21)),
    "huge number": _call("zeros", [10**30]),
    "huge tensor": _call("zeros", [2**31, 2**31]),
    "huge tensor without overflow": _call("zeros", [2**30]),
    "huge padding": _call("pad", IMAGES, [0, 2**20, 0, 2**20]),
    "huge list": _call("times", [1] * 1000, 10**9),
    "a million pieces": _call("unbind.int", _call("zeros", [10**6])),
    "wrong shape": {"op": "layer", "name": "head", "args": [IMAGES]},
    "wrong number of arguments": _call("relu"),
    "not even a dictionary": ["relu"],
    "no operation": {"args": []},
    "operation that is a list": {"op": ["relu"], "args": []},
    "unknown layer": {"op": "layer", "name": "forward", "args": [IMAGES]},
    "second input": {"op": "images"},
    "second output": {"op": "logits", "args": [IMAGES]},
    "unknown weight": {"op": "parameter", "name": "absent"},
    "name that is code": {"op": "buffer", "name": "x); import os; (x"},
    "name of a method": {"op": "buffer", "name": "forward"},
    "private name": {"op": "buffer", "name": "_modules.x"},
    "name that is a keyword": {"op": "buffer", "name": "a.class"},
    "name inside of a layer": {"op": "parameter", "name": "stem.weight"},
}


def _insert(data: dict[str, Any], node: Any) -> None:
    """Put a node after the images, where no reference of another one changes its meaning."""
    nodes = data["nodes"]
    nodes.insert(len(nodes) - 1, node)


@pytest.mark.parametrize("node", BAD_NODES.values(), ids=BAD_NODES.keys())
def test_a_hostile_node_is_refused_in_one_line(hostile, node):
    data, weights = hostile
    if isinstance(node, dict) and node.get("op") == "unbind.int":
        _insert(data, node["args"][0])
        node = _call("unbind.int", {"node": len(data["nodes"]) - 2})
    _insert(data, node)
    _refused(data, weights)


def _refused(data: Any, weights: Any) -> str:
    with pytest.raises(TeacherError) as caught:
        from_data(data, weights)
    (line,) = caught.value.lines()
    assert line.startswith("the student's graph cannot be used: ")
    assert len(line) < 400
    return line


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"nodes": [{"op": "images"}] * 1_000_000},
        {"nodes": []},
        {"nodes": "images"},
        {"layers": None},
        {"input_size": [3, 16]},
        {"input_size": [3, 16, 10**9]},
        {"tied": {"stem.weight": "last.weight"}},
        {"tied": {"stem.weight": "absent"}},
        {"layers": [{"name": "stem", "type": "Module", "options": {}}]},
        {"layers": [{"name": "stem.__init__", "type": "Linear", "options": {}}]},
        {"layers": [{"name": "stem", "type": "Conv2d", "options": {"stride": 1, "device": "cpu"}}]},
    ],
)
def test_hostile_data_is_refused(hostile, change):
    data, weights = hostile
    _refused(data | change, weights)
    _refused([], weights)


@pytest.mark.parametrize("groups", [0, -1, 3, 10**9, True, None])
def test_absurd_options_of_a_layer_are_refused(hostile, groups):
    data, weights = hostile
    layer = next(layer for layer in data["layers"] if layer["name"] == "grouped")
    layer["options"]["groups"] = groups
    _refused(data, weights)


@pytest.mark.parametrize(
    "change",
    [
        {"stem.weight": torch.zeros(8, 4, 3, 3)},
        {"stem.weight": torch.zeros(8)},
        {"stem.bias": torch.zeros(9)},
        {"head.weight": torch.zeros(10, 9)},
        {"stem.weight": torch.zeros(8, 3, 3, 3, dtype=torch.long)},
        {"more": torch.zeros(1)},
        {"stem.more": torch.zeros(1)},
        {"stem.bias": [0.0] * 8},
    ],
)
def test_weights_that_do_not_fit_are_refused(hostile, change):
    data, weights = hostile
    _refused(data, weights | change)
    from_data(data, weights)


def test_missing_weights_are_refused(hostile):
    data, weights = hostile
    _refused(data, {name: weight for name, weight in weights.items() if name != "head.weight"})


def test_operations_are_pure_functions_of_tensors():
    """In-place operations change the activation that they are given, and nothing else has a side effect."""
    for name, operation in OPERATIONS.items():
        schema = getattr(operation, "_schema", None)
        if schema is not None:
            changed = [argument for argument in schema.arguments if argument.is_write]
            assert len(changed) <= 1, name
            assert all(argument.name == "self" for argument in changed), name
            switched_off = name in ("dropout", "scaled_dot_product_attention")  # randomness that is an argument
            assert switched_off or torch.Tag.nondeterministic_seeded not in operation.tags, name
            assert not any(word in name for word in ("file", "save", "load", "rand", "item", "set_")), name


def test_a_graph_of_another_origin_is_not_written():
    class Random(nn.Module):
        def forward(self, images):
            return torch.rand_like(images)

    module = fx.symbolic_trace(Random())
    module.meta["input_size"] = (1, 2, 2)
    with pytest.raises(ValueError, match="rand_like"):
        to_data(module)
