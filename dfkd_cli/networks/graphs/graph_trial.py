"""Runs a stranger's graph on shapes only, before anything is computed with it."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode

from dfkd_cli.errors import TeacherError
from dfkd_cli.networks.graphs.layer_calls import arguments_by_name, aten
from dfkd_cli.networks.tasks import task_of

_BATCH = 2
_LARGEST_TENSOR = 2**28  # numbers per image in a value of the graph: 1 GiB
_MOST_PIECES = 100_000  # tensors in lists, in the whole graph


def check_shapes(module: fx.GraphModule, input_size: tuple[int, ...]) -> None:
    """Raise TeacherError, or what torch raises, when a shape does not fit or a value would be absurdly large."""
    module.eval()
    # Operations that make tensors would allocate memory for them without this mode.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        logits = _Shapes(module).run(torch.empty(_BATCH, *input_size, device="meta"))
    if not isinstance(logits, Tensor) or task_of(logits, _BATCH) is None:
        raise TeacherError("it returns no logits")


class _Shapes(fx.Interpreter):
    """Interprets a graph and limits the size of every value."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.extra_traceback = False  # torch adds the whole graph to an error's text
        self.pieces = 0

    def run_node(self, n: fx.Node) -> Any:
        arguments, _ = self.fetch_args_kwargs_from_env(n)
        if n.target is operator.mul and not all(isinstance(value, int | float | Tensor) for value in arguments):
            raise TeacherError("a product of lists")  # which would be a longer list
        if n.target is operator.getitem and not isinstance(arguments[0], list | tuple | Tensor):
            raise TeacherError("an item of neither list nor tensor")
        if n.op == "call_function":
            self.pieces += _count_pieces(n, arguments)
            if self.pieces > _MOST_PIECES:
                raise TeacherError(f"{n} makes too many tensors")
        result = super().run_node(n)
        for value in _leaves(result):
            size = value.numel() if isinstance(value, Tensor) else value
            if isinstance(size, torch.device):
                continue
            # A size that depends on the values of a tensor is a symbol here.
            if type(size) not in (int, float) or size > _LARGEST_TENSOR * _BATCH:
                raise TeacherError(f"the result of {n} is too large or of unknown size")
        return result


def _leaves(result: Any) -> Iterator[Any]:
    yield from result if isinstance(result, list | tuple) else (result,)


def _count_pieces(node: fx.Node, arguments: tuple[Any, ...]) -> int:
    """Return how many tensors an operation that splits a tensor makes."""
    if node.target not in (aten.unbind.int, aten.split.Tensor, aten.unsafe_split.Tensor):
        return 0
    values = arguments_by_name(node)
    length = arguments[0].shape[values["dim"]]
    return length if node.target is aten.unbind.int else length // max(1, values["split_size"])
