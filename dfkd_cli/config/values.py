"""Values from YAML converted to frozen dataclasses: strictly, and with all mistakes reported at once."""

import math
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

WRITTEN = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_STANDINS = {int: 1, float: 1.0, bool: False, str: ""}


class Problem(NamedTuple):
    """One mistake: the dotted key, and a sentence that names it."""

    key: str
    text: str


class OutOfBoundsError(ValueError):
    """A value of a dataclass that is out of its range."""

    def __init__(self, name: str, value: float, bound: float):
        super().__init__(f"{name} is {value}; it must be at {'least' if value < bound else 'most'} {bound:g}")
        self.name, self.bound = name, bound


def build(kind: type, values: Any, where: str, problems: list[Problem]) -> Any:
    """Return an instance of the dataclass `kind` from a mapping.

    Appends each mistake to `problems`. An instance with mistakes holds stand-ins and serves only to find more of them;
    it is None when it cannot be made.
    """
    if not isinstance(values, dict):
        problems.append(Problem(where, f"{where or 'the recipe'} must be a section with keys, not {_written(values)}"))
        return None
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    misspelt: set[str] = set()
    for key in values.keys() - known.keys():
        dotted = _join(where, key)
        problems.append(Problem(dotted, f"unknown key '{dotted}'{did_you_mean(str(key), known)}"))
        misspelt.update(get_close_matches(str(key), known, n=1))
    built: dict[str, Any] = {}
    standins: set[str] = set()
    for name, field in known.items():
        before = len(problems)
        if name in values:
            built[name] = convert(hints[name], values[name], _join(where, name), problems)
        elif field.default is MISSING and field.default_factory is MISSING and name not in misspelt:
            problems.append(Problem(_join(where, name), f"missing key '{_join(where, name)}'"))
        if len(problems) > before or (name in misspelt and name not in values):
            standins.add(name)
            built[name] = built[name] if is_dataclass(built.get(name)) else _standin(hints[name])
    return _instance(kind, built, standins, where, problems)


def _instance(kind: type, values: dict[str, Any], standins: set[str], where: str, problems: list[Problem]) -> Any:
    """Return the dataclass with these values. Reports each value out of its range and moves it to the bound."""
    while True:
        try:
            return kind(**values)
        except OutOfBoundsError as error:
            if error.name not in standins:
                problems.append(Problem(_join(where, error.name), f"{where}: {error}" if where else str(error)))
            standins.add(error.name)
            values = values | {error.name: error.bound}
        except ValueError as error:
            if not standins:  # a check of several values is not valid for stand-ins
                problems.append(Problem(where, f"{where}: {error}" if where else str(error)))
            return None


def _standin(hint: Any) -> Any:
    """Return some value of this type, in place of a missing or wrong one."""
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, {}, "", [])
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    return _STANDINS.get(hint)


def convert(hint: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    """Return the value as the annotated type. Appends a mistake to `problems`."""
    if hint in WRITTEN:
        return _scalar(hint, value, where, problems)
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where, problems)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(map(str, arguments))
            text = f"'{where}' is {value!r}{did_you_mean(str(value), arguments)}; choose one of: {choices}"
            problems.append(Problem(where, text))
        return value
    if origin in (Union, UnionType):
        options = [option for option in arguments if option is not type(None)]
        return None if value is None else convert(options[0], value, where, problems)
    if origin is tuple and arguments[1:] == (...,):
        if isinstance(value, list):
            return tuple(convert(arguments[0], entry, where, problems) for entry in value)
        problems.append(Problem(where, f"'{where}' is {value!r}; it must be a list"))
        return value
    raise TypeError(f"{where}: recipes cannot hold {hint}")


def _scalar(kind: type, value: Any, where: str, problems: list[Problem]) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is float and number:
        return float(value)
    if kind is int and number and value == int(value):
        return int(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    problems.append(Problem(where, f"'{where}' is {_written(value)}; it must be {WRITTEN[kind]}"))
    return value


def require(values: object, at_least: float, *names: str, at_most: float = math.inf) -> None:
    """Raise OutOfBoundsError, which `build` reports, when one of these fields is out of the range."""
    for name in names:
        value = getattr(values, name)
        if not at_least <= value <= at_most:
            raise OutOfBoundsError(name, value, at_least if value < at_least else at_most)


def require_share(values: object, *names: str) -> None:
    """Raise OutOfBoundsError when one of these fields is not in [0, 1]."""
    require(values, 0.0, *names, at_most=1.0)


def _written(value: Any) -> str:
    return "empty" if value is None else repr(value)


def did_you_mean(name: str, known: Any) -> str:
    """Return "; did you mean 'x'?" for the closest known name, "" when none is close."""
    close = get_close_matches(name, list(map(str, known)), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
