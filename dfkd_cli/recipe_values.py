"""Plain values from YAML made frozen dataclasses: strict, and with every mistake reported at once."""

from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

WRITTEN = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def build(kind: type, values: Any, where: str, problems: list[str]) -> Any:
    """An instance of the dataclass `kind` from a mapping; None when something is wrong.

    Each mistake appends one sentence to `problems`, with the dotted name of the key it is about.
    """
    if not isinstance(values, dict):
        problems.append(f"{where or 'the recipe'} must be a section with keys, not {values!r}")
        return None
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    for key in values.keys() - known.keys():
        problems.append(f"unknown key '{_join(where, key)}'{did_you_mean(str(key), known)}")
    before = len(problems)
    built = {}
    for name, field in known.items():
        if name in values:
            built[name] = convert(hints[name], values[name], _join(where, name), problems)
        elif field.default is MISSING and field.default_factory is MISSING:
            problems.append(f"missing key '{_join(where, name)}'")
    if len(problems) > before:
        return None
    try:
        return kind(**built)
    except ValueError as error:  # a range that the dataclass checks itself
        problems.append(f"{where}: {error}" if where else str(error))
        return None


def convert(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    """The value as the annotated type; a mistake appends to `problems`."""
    if hint in WRITTEN:
        return _scalar(hint, value, where, problems)
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where, problems)
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            choices = ", ".join(str(choice) for choice in get_args(hint))
            problems.append(f"'{where}' is {value!r}; choose one of: {choices}")
        return value
    if origin in (Union, UnionType):
        options = [option for option in get_args(hint) if option is not type(None)]
        return None if value is None else convert(options[0], value, where, problems)
    raise TypeError(f"{where}: recipes cannot hold {hint}")


def _scalar(kind: type, value: Any, where: str, problems: list[str]) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and (number or isinstance(value, str)):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as text
        except ValueError:
            pass
    elif kind is int and number and value == int(value):
        return int(value)
    elif isinstance(value, kind) and kind in (bool, str):
        return value
    problems.append(f"'{where}' is {value!r}; it must be {WRITTEN[kind]}")
    return value


def require(values: object, at_least: float, *names: str) -> None:
    """Raises ValueError, for `build` to report, when one of these fields is below the bound."""
    for name in names:
        if getattr(values, name) < at_least:
            raise ValueError(f"{name} is {getattr(values, name)}; it must be at least {at_least:g}")


def did_you_mean(name: str, known: Any) -> str:
    """ "; did you mean 'x'?" for the closest known name, or nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
