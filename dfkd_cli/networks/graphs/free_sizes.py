"""Removes recorded sizes from a traced graph, so that the batch size is free and channels can be removed."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import fx
from torch.fx.node import map_aggregate

from dfkd_cli.networks.graphs.layer_calls import aten

_RESHAPES = {aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.unflatten.int}
# Their first or second argument is a shape.
_WITH_SHAPES: dict[Any, int] = {
    aten.expand.default: 1,
    aten.repeat.default: 1,
    aten.zeros.default: 0,
    aten.ones.default: 0,
    aten.full.default: 0,
    aten.new_zeros.default: 1,
    aten.new_ones.default: 1,
    aten.new_full.default: 1,
}
_LARGEST = 2**63 - 1  # the end of a slice without end


class _Regrouping(NamedTuple):
    """Neighbouring axes whose elements become those of other neighbouring axes."""

    start: int  # the first of the axes before
    before: list[int]
    after: list[int]


def free_sizes(graph: fx.Graph, batch: int, unmistakable: bool) -> None:
    """Replace sizes of the graph that was traced with `batch` images by sizes that follow from the inputs.

    `unmistakable` means that no other size is a multiple of `batch`; then every such number is replaced, otherwise
    only where a batch size usually stands. What is overlooked has to be found by a trial with other sizes.
    """
    for node in list(graph.nodes):
        if node.target in _RESHAPES:
            _replace_reshape(graph, node, batch)
        elif node.target is aten.expand.default:
            _keep_expanded_sizes(node)
    _replace_batch(graph, batch, unmistakable)


def _replace_reshape(graph: fx.Graph, node: fx.Node, batch: int) -> None:
    """Replace a reshape by `flatten` and `unflatten`, which name only the axes that they change."""
    source: Any = node.args[0]
    steps = _regroupings(tuple(source.meta["val"].shape), tuple(node.meta["val"].shape))
    if steps is None:
        return
    with graph.inserting_before(node):
        value = source
        # From the last to the first, so that the places of the earlier axes stay what they are.
        for step in reversed(steps):
            if len(step.before) > 1:
                value = graph.call_function(
                    aten.flatten.using_ints, (value, step.start, step.start + len(step.before) - 1)
                )
            if len(step.after) > 1:
                sizes = list(step.after)
                sizes[_free_axis(step, batch)] = -1
                value = graph.call_function(aten.unflatten.int, (value, step.start, sizes))
    if value is source and source.op == "placeholder":
        return
    if value is not source:
        value.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(value)
    graph.erase_node(node)


def _free_axis(step: _Regrouping, batch: int) -> int:
    """Return which of the new axes has the size that is left: the batch, else the last one longer than one."""
    if step.before[0] % batch == 0:
        by_batch = [axis for axis, size in enumerate(step.after) if size % batch == 0]
        if by_batch:
            return by_batch[0]
    return max((axis for axis, size in enumerate(step.after) if size > 1), default=len(step.after) - 1)


def _regroupings(before: Sequence[int], after: Sequence[int]) -> list[_Regrouping] | None:
    """Return the smallest groups of axes that change; None for empty tensors and scalars."""
    if not before or not after or 0 in before or 0 in after:
        return None
    groups: list[tuple[list[int], list[int]]] = []
    left, right = list(before), list(after)
    while left and right:
        one, other = [left.pop(0)], [right.pop(0)]
        sizes = [one[0], other[0]]
        while sizes[0] != sizes[1]:
            side, rest, place = (one, left, 0) if sizes[0] < sizes[1] else (other, right, 1)
            side.append(rest.pop(0))
            sizes[place] *= side[-1]
        groups.append((one, other))
    groups[-1][0].extend(left)  # axes of length one
    groups[-1][1].extend(right)
    steps, start = [], 0
    for one, other in groups:
        if len(one) > 1 or len(other) > 1:
            steps.append(_Regrouping(start, one, other))
        start += len(one)
    return steps


def _keep_expanded_sizes(node: fx.Node) -> None:
    """Write -1 for the axes that `expand` leaves as they are."""
    source: Any = node.args[0]
    before, after = source.meta["val"].shape, node.meta["val"].shape
    new = len(after) - len(before)
    sizes = [-1 if axis >= new and before[axis - new] == size else size for axis, size in enumerate(after)]
    node.update_arg(1, sizes)


def _replace_batch(graph: fx.Graph, batch: int, unmistakable: bool) -> None:
    images = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(images):
        size = graph.call_method("size", (images, 0))

    def replace(value: Any) -> Any:
        if type(value) is not int or value <= 0 or value == _LARGEST or value % batch:
            return value
        return size if value == batch else graph.call_function(operator.mul, (size, value // batch))

    for node in list(graph.nodes):
        with graph.inserting_before(node):
            if unmistakable and node.op == "call_function":
                node.args, node.kwargs = (map_aggregate(part, replace) for part in (node.args, node.kwargs))
            elif node.target in _WITH_SHAPES and node.args[_WITH_SHAPES[node.target]]:
                first, *others = node.args[_WITH_SHAPES[node.target]]
                node.update_arg(_WITH_SHAPES[node.target], [replace(first), *others])
    if not size.users:
        graph.erase_node(size)
