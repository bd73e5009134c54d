"""Arguments of a graph's operations as data for JSON, and back."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from dfkd_cli.errors import TeacherError

_DTYPES = {
    name: getattr(torch, name)
    for name in ("float16", "bfloat16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64")
}
_MEMORY_FORMATS = {
    name: getattr(torch, name) for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
}
_LAYOUTS = {"strided": torch.strided}
_TABLES: dict[str, Mapping[str, Any]] = {"dtype": _DTYPES, "memory_format": _MEMORY_FORMATS, "layout": _LAYOUTS}
# Modes of padding, gelu, rounding and meshgrid.
_WORDS = frozenset(
    ("same", "valid", "constant", "reflect", "replicate", "circular", "none", "tanh", "floor", "trunc", "ij", "xy")
)
# Of einsum, which also takes equations without a result.
_EQUATION = re.compile(r"[A-Za-z., ]{1,80}-> ?[A-Za-z. ]{0,40}|[A-Za-z. ]{1,20}(,[A-Za-z. ]{1,20}){1,4}", re.ASCII)
_DEEPEST = 20
MOST_ITEMS = 10_000  # of one list
_LARGEST_NUMBER = 2**31
_NO_END = 2**63 - 1  # of a slice
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(value: Any, indices: Mapping[fx.Node, int]) -> Any:
    """Return an argument as data; nodes become their indices. Raises ValueError for types without a form as data."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, fx.Node):
        return {"node": indices[value]}
    if isinstance(value, list):
        return [encode(item, indices) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [encode(item, indices) for item in value]}
    if isinstance(value, slice):
        return {"slice": [encode(item, indices) for item in (value.start, value.stop, value.step)]}
    for kind, table in _TABLES.items():
        for name, known in table.items():
            if value is known:
                return {kind: name}
    raise ValueError(f"an argument of type {type(value).__name__} has no form as data")


def decode(data: Any, nodes: Sequence[fx.Node], depth: int = 0) -> Any:
    """Return the argument of `encode`; raise TeacherError for anything that `encode` does not write."""
    if depth > _DEEPEST:
        raise TeacherError("an argument is nested too deeply")
    if data is None or type(data) is bool:
        return data
    if type(data) is int:
        return data if data == _NO_END else read_number(data, -_LARGEST_NUMBER, _LARGEST_NUMBER)
    if type(data) is float and math.isfinite(data):
        return data
    if type(data) is str and (data in _WORDS or _EQUATION.fullmatch(data)):
        return data
    if type(data) is list:
        return _decode_items(data, nodes, depth)
    if type(data) is dict and len(data) == 1:
        return _decode_tagged(*next(iter(data.items())), nodes, depth)
    raise TeacherError(f"an argument is not allowed: {repr(data)[:60] if type(data) in (str, float) else type(data)}")


def _decode_items(data: Any, nodes: Sequence[fx.Node], depth: int) -> list[Any]:
    if type(data) is not list or len(data) > MOST_ITEMS:
        raise TeacherError("a list of arguments is malformed or too long")
    return [decode(item, nodes, depth + 1) for item in data]


def _decode_tagged(kind: Any, data: Any, nodes: Sequence[fx.Node], depth: int) -> Any:
    if kind == "node":
        return nodes[read_number(data, 0, len(nodes) - 1)]
    if kind == "tuple":
        return tuple(_decode_items(data, nodes, depth))
    if kind == "slice":
        items = _decode_items(data, nodes, depth)
        if len(items) == 3:
            return slice(*items)
    table = _FLOATS if kind == "float" else _TABLES.get(kind, {}) if type(kind) is str else {}
    if type(data) is str and data in table:
        return table[data]
    raise TeacherError(f"an argument is not allowed: {str(kind)[:60]}")


def read_number(value: Any, smallest: int, largest: int) -> int:
    """Return an integer; raise TeacherError when it is another type or out of range."""
    if type(value) is not int or not smallest <= value <= largest:
        shown = value if type(value) is int and abs(value) < 10**20 else type(value).__name__
        raise TeacherError(f"a number is out of range: {shown}")
    return value
