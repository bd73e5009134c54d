"""Reads TorchScript graphs, and rewrites them to return the inputs of their layers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch._C import Node

from dfkd_cli.networks.operations import MULTIPLICATIONS, NORMS, Multiplication, Norm

# Forward hooks do not work on ScriptModules, so their graphs are rewritten. torch's type stubs lack half of a Graph.
Graph = Any

NODE_NORMS: dict[str, Norm] = {f"aten::{name}": norm for name, norm in NORMS.items()}
NODE_MULTIPLICATIONS: dict[str, Multiplication] = {
    f"aten::{name}": multiplication for name, multiplication in MULTIPLICATIONS.items()
}
# These hold a constant or pass on the result of another operation.
_PASSING_ON = (
    "prim::GetAttr",
    "prim::Constant",
    "prim::Uninitialized",
    "prim::ListUnpack",
    "prim::TupleUnpack",
    "aten::__getitem__",
)


class Tap(NamedTuple):
    """A tensor that a rewritten graph returns."""

    site: int  # the node's position in `walk(graph)`
    argument: int | None  # position among its arguments; None for its first result


def walk(graph: Graph) -> Iterator[Node]:
    """Yield every node in the order of execution, nested blocks included; copies of a graph give the same order."""

    def inside(block) -> Iterator[Node]:
        for node in block.nodes():
            yield node
            for nested in node.blocks():
                yield from inside(nested)

    return inside(graph)


def creates_tensor(node: Node) -> bool:
    """Return whether the first result is a new activation: a tensor, but no weight, constant or item of a list."""
    outputs = list(node.outputs())
    return bool(outputs) and node.kind() not in _PASSING_ON and outputs[0].type().kind() == "TensorType"


def has_statistics(node: Node) -> bool:
    """Return whether this is a BatchNorm call with running statistics."""
    norm = NODE_NORMS.get(node.kind())
    return norm is not None and not any(node.inputsAt(i).node().mustBeNone() for i in (norm.mean, norm.var))


def tap(graph: Graph, taps: Sequence[Sequence[Tap]]) -> Callable:
    """Return a function whose result is (result of forward, one list of tensors per group of taps).

    A tensor is appended to its group's list when its node runs. This also works in branches and loops, whose values
    cannot be outputs of the graph.
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
    """Return the first number of every list of integers in the graph, such as the batch size of `view(batch, -1)`."""
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
