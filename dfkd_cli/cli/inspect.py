"""`dfkd inspect`: what is in a teacher's file, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import NetworkArguments, taking

if TYPE_CHECKING:
    from dfkd_cli.compression.inspect import Inspection


@taking(NetworkArguments)
def inspect(
    arguments: NetworkArguments,
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="As for compress.")],
    as_json: options.Json = False,
) -> object:
    """Show what TEACHER is, where each fact comes from, and which recipes fit it. Trains and writes nothing."""
    flags = arguments.load_options()

    from dfkd_cli.compression.inspect import inspect_teacher
    from dfkd_cli.machine.device import resolve_device

    resolve_device(arguments.device)  # only checked: one look is no work for a GPU
    inspection = inspect_teacher(teacher, flags)
    if as_json:
        return inspection
    for name, text in _rows(inspection):
        print(f"{name:16} {text}".rstrip())
    return None


def _rows(seen: Inspection) -> list[tuple[str, str]]:
    size = f"{seen.file_bytes:,} bytes" if seen.file_bytes else "-"
    layers = ", ".join(f"{count} {kind}" for kind, count in seen.norm_layers.items()) or "none"
    rows = [
        ("kind", seen.kind),
        ("architecture", seen.arch or "its own, inside the file"),
        ("classes", f"{seen.classes}{_from(seen, 'num_classes')}"),
        ("input", f"{_shape(seen.input_size)}{_from(seen, 'input_size')}"),
        ("mean", f"{_numbers(seen.mean)}{_from(seen, 'mean')}"),
        ("std", f"{_numbers(seen.std)}{_from(seen, 'std')}"),
        ("parameters", f"{seen.parameters:,}"),
        ("MACs", f"{seen.macs:,} per image"),
        ("norm layers", layers),
        ("BN statistics", _statistics(seen)),
        ("embedding", "-" if seen.embedding is None else str(seen.embedding)),
        ("feature maps", ", ".join(map(_shape, seen.stages)) or "-"),
        ("file", size),
        ("sha256", seen.sha256 or "- (not one file)"),
    ]
    rows += [("recipe fits", fit.name + (", with --pool DIR" if fit.pool else "")) for fit in seen.recipes if fit.fits]
    rows += [("does not fit", f"{fit.name}: {fit.reason}") for fit in seen.recipes if not fit.fits]
    return rows + [("note", note) for note in seen.notes]


def _from(seen: Inspection, name: str) -> str:
    return f"  ({seen.found[name]})" if name in seen.found else ""


def _statistics(seen: Inspection) -> str:
    found = seen.batchnorm
    if not found.layers:
        return "none: nothing tells what the training images looked like"
    untrained = f"; {found.untrained_layers} still hold mean 0 and variance 1" if found.untrained_layers else ""
    return f"{found.layers} layers, {found.channels:,} channels{untrained}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
