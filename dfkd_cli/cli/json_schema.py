"""JSON Schemas of what `--json` prints, made from the dataclasses that are printed.

pydantic's TypeAdapter would do the same, but it would be a large new dependency for the few forms of annotation that
the documents use; a form that is not known here raises TypeError.
"""

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}
FAILURE: dict[str, Any] = {
    "description": "What went wrong; absent when the command succeeded.",
    "type": "object",
    "properties": {"message": {"type": "string"}, "exit_code": {"type": "integer", "minimum": 1, "maximum": 130}},
    "required": ["message", "exit_code"],
    "additionalProperties": False,
}


def document_schema(command: str, kind: type) -> dict[str, Any]:
    """The schema of a command's document: the dataclass, the dataclass with an error (a missed gate), or an error."""
    whole = schema_of(kind)
    whole["properties"]["error"] = FAILURE
    failed = {"type": "object", "properties": {"error": FAILURE}, "required": ["error"], "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"dfkd {command} --json",
        "anyOf": [whole, failed],
    }


def schema_of(hint: Any) -> dict[str, Any]:
    """The schema of a type as dataclasses are annotated with it. Raises TypeError for others."""
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if hint is Any:
        return {}
    if is_dataclass(hint) and isinstance(hint, type):
        return _object(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return {"anyOf": [{"type": "null"} if part is type(None) else schema_of(part) for part in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if origin is tuple and arguments[1:] != (...,):
        count = len(arguments)
        return {"type": "array", "items": schema_of(arguments[0]), "minItems": count, "maxItems": count}
    if origin in (list, tuple):
        return {"type": "array", "items": schema_of(arguments[0])}
    raise TypeError(f"no JSON schema for {hint}")


def _object(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    return {
        "description": " ".join((kind.__doc__ or "").split()),
        "type": "object",
        "properties": {name: schema_of(hints[name]) for name in names},
        "required": names,
        "additionalProperties": False,
    }
