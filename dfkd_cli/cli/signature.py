"""The signature of a command, from which typer reads its options, made of the fields of a dataclass."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints


def taking(kind: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives `command(arguments: kind, **own)` one parameter per field of `kind`.

    Typer reads the options of a command from its signature; the decorator adds the fields to it.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(kind, include_extras=True)
        shared = [_parameter(field, hints[field.name]) for field in fields(kind)]
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        ]

        # Required ones first.
        parameters = sorted([*shared, *own], key=lambda parameter: parameter.default is not inspect.Parameter.empty)

        def run(**values: Any) -> Any:
            arguments = kind(**{parameter.name: values.pop(parameter.name) for parameter in shared})
            return command(arguments, **values)

        run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _parameter(field: Field, annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
