"""Reading TorchScript graphs, and making them return what their layers receive."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch._C import Node

# Forward hooks do not work on ScriptModules, so their graphs are rewritten. torch's stubs know half of a Graph.
Graph = Any

# Where BatchNorm operations take (running mean, running variance, training flag); None: the operation has no flag.
NORMS: dict[str, tuple[int, int, int | None]] = {
    "aten::batch_norm": (3, 4, 5),
    "aten::native_batch_norm": (3, 4, 5),
    "aten::cudnn_batch_norm": (3, 4, 5),
    "aten::miopen_batch_norm": (3, 4, 5),
    "aten::_batch_norm_impl_index": (3, 4, 5),
    "aten::_native_batch_norm_legit": (3, 4, 5),
    "aten::_native_batch_norm_legit_no_training": (3, 4, None),
}
# These write a value down, or hand on what another operation made.
_MAKING_NOTHING = (
    "prim::GetAttr",
    "prim::Constant",
    "prim::Uninitialized",
    "prim::ListUnpack",
    "prim::TupleUnpack",
    "aten::__getitem__",
)
# Which operations multiply by weights, and where in their arguments the activation is.
MULTIPLICATIONS = {
    "aten::linear": ("linear", 0),
    "aten::addmm": ("linear", 1),
    "aten::matmul": ("linear", 0),
    "aten::mm": ("linear", 0),
    "aten::conv1d": ("conv", 0),
    "aten::conv2d": ("conv", 0),
    "aten::conv3d": ("conv", 0),
    "aten::convolution": ("conv", 0),
    "aten::_convolution": ("conv", 0),
}


class Tap(NamedTuple):
    """A tensor to take out of a graph."""

    site: int  # the node's position in `walk(graph)`
    argument: int | None  # which of its arguments; None for its first result


def walk(graph: Graph) -> Iterator[Node]:
    """Every node in the order of execution, nested blocks included; the same order in every copy of a graph."""

    def inside(block) -> Iterator[Node]:
        for node in block.nodes():
            yield node
            for nested in node.blocks():
                yield from inside(nested)

    return inside(graph)


def makes_tensor(node: Node) -> bool:
    """Whether the first result is a new activation: a tensor that is no weight, no constant and no part of a list."""
    outputs = list(node.outputs())
    return bool(outputs) and node.kind() not in _MAKING_NOTHING and outputs[0].type().kind() == "TensorType"


def keeps_statistics(node: Node) -> bool:
    """Whether this is a BatchNorm call with running statistics."""
    return node.kind() in NORMS and not any(node.inputsAt(i).node().mustBeNone() for i in NORMS[node.kind()][:2])


def tap(graph: Graph, taps: Sequence[Sequence[Tap]]) -> Callable:
    """A function that returns (what forward returns, one list of tensors per group of taps).

    A tensor joins its group's list when its node runs: also in a branch or a loop, from where a graph output could
    not be reached.
    """
    graph = graph.copy()
    tensors = torch._C.ListType(torch._C.TensorType.get())
    nodes = list(walk(graph))
    lists = []
    for group in taps:
        values = graph.create("prim::ListConstruct", [], 1)
        values.output().setType(tensors)
        graph.prependNode(values)
        lists.append(values.output())
        for site, argument in group:
            node = nodes[site]
            value = next(node.outputs()) if argument is None else node.inputsAt(argument)
            append = graph.create("aten::append", [values.output(), value], 1)
            append.output().setType(tensors)
            append.insertAfter(node) if argument is None else append.insertBefore(node)
    returned = next(graph.outputs())
    bundle = graph.create("prim::TupleConstruct", [returned, *lists], 1)
    bundle.output().setType(torch._C.TupleType([value.type() for value in [returned, *lists]]))
    graph.appendNode(bundle)
    graph.eraseOutput(0)
    graph.registerOutput(bundle.output())
    graph.lint()
    return torch._C._create_function_from_graph("observe", graph)


def leading_lengths(graph: Graph) -> set[int]:
    """The first number of every list of integers in the graph: among them the batch size of a `view(batch, -1)`."""
    lengths = set()
    for node in walk(graph):
        if node.kind() == "prim::ListConstruct" and node.inputsSize():
            first = node.inputsAt(0).node()
            if first.kind() == "prim::Constant" and first.hasAttribute("value") and first.kindOf("value") == "i":
                lengths.add(first.i("value"))
        elif node.kind() == "prim::Constant" and str(node.output().type()) == "List[int]":
            recorded: Any = node.output().toIValue()
            lengths.update(recorded[:1])
    return lengths
