"""`dfkd inspect`: show the facts about a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import TEACHER_HELP, NetworkArguments
from dfkd_cli.cli.signature import taking
from dfkd_cli.cli.wrapping import print_rows

if TYPE_CHECKING:
    from dfkd_cli.compression.inspect import Inspection

COLUMN = 17  # where the facts begin
CONVENTIONS = {
    "normalised": "normalised images",
    "unit range": "images in [0, 1]",
    "bytes": "images from 0 to 255",
    "centred": "images in [-1, 1]",
    "unknown": "no usual normalisation",
}


@taking(NetworkArguments)
def inspect(
    arguments: NetworkArguments,
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help=TEACHER_HELP)],
    as_json: options.Json = False,
) -> object:
    """Show the facts about TEACHER, the source of each fact, and the recipes that fit. Writes nothing."""
    flags = arguments.load_options()

    from dfkd_cli.compression.inspect import inspect_teacher
    from dfkd_cli.machine.device import resolve_device

    resolve_device(arguments.device)  # checked only: the inspection computes on the CPU
    inspection = inspect_teacher(teacher, flags)
    if as_json:
        return inspection
    print_rows(_rows(inspection), COLUMN)
    return None


def _rows(seen: Inspection) -> list[tuple[str, str]]:
    size = f"{seen.file_bytes:,} bytes" if seen.file_bytes else "-"
    layers = ", ".join(f"{count} {kind}" for kind, count in seen.norm_layers.items()) or "none"
    rows = [
        ("kind", seen.kind),
        ("architecture", seen.arch or "defined in the file"),
        ("task", seen.task),
        ("classes", f"{seen.classes}{_from(seen, 'num_classes')}"),
        ("class names", f"{_first(seen.class_names)}{_from(seen, 'class_names')}"),
        ("input", f"{_shape(seen.input_size)}{_from(seen, 'input_size')}"),
        ("mean", f"{_numbers(seen.mean)}{_from(seen, 'mean')}"),
        ("std", f"{_numbers(seen.std)}{_from(seen, 'std')}"),
        ("crop_pct", f"{seen.preprocessing.crop_pct:.4g}{_from(seen, 'crop_pct') or '  (default)'}"),
        ("interpolation", f"{seen.preprocessing.interpolation}{_from(seen, 'interpolation') or '  (default)'}"),
        ("crop_mode", f"{seen.preprocessing.crop_mode}{_from(seen, 'crop_mode') or '  (default)'}"),
        ("parameters", f"{seen.parameters:,}"),
        ("MACs", f"{seen.macs:,} per image"),
        ("norm layers", layers),
        ("BatchNorm", _statistics(seen)),
        ("trained on", _trained_on(seen)),
        ("embedding", "-" if seen.embedding is None else str(seen.embedding)),
        ("feature maps", ", ".join(map(_shape, seen.stages)) or "-"),
        ("students", _shares(seen)),
        ("file", size),
        ("sha256", seen.sha256 or "- (not a single file)"),
    ]
    rows += [("recipe fits", fit.name + (", with --pool DIR" if fit.pool else "")) for fit in seen.recipes if fit.fits]
    rows += [("does not fit", f"{fit.name}: {fit.reason}") for fit in seen.recipes if not fit.fits]
    return rows + [("note", note) for note in seen.notes]


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if names[5:] else "") or "unknown"


def _from(seen: Inspection, name: str) -> str:
    return f"  ({seen.found[name]})" if name in seen.found else ""


def _statistics(seen: Inspection) -> str:
    from dfkd_cli.report.quantities import counted

    found = seen.batchnorm
    if not found.layers:
        return "no layers, so no statistics of the training images"
    untrained = f"; mean 0 and variance 1 (untrained) in {found.untrained_layers}" if found.untrained_layers else ""
    return f"{counted(found.layers, 'layer')}, {counted(found.channels, 'channel')}{untrained}"


def _shares(seen: Inspection) -> str:
    shares = seen.shares
    more = f" and {len(shares.whole) - 1} more" if len(shares.whole) > 1 else ""
    whole = f"; these channels stay: {shares.whole[0]}{more}" if shares.whole else ""
    if shares.smallest is None:
        return f"by name only: {shares.reason}{whole}"
    return f"--student from {shares.smallest:g} on, or by name{whole}"


def _trained_on(seen: Inspection) -> str:
    found = seen.input_statistics
    if found is None:
        return "unknown: the first BatchNorm layer does not show the inputs"
    values = f"mean {_rounded(found.mean)} and std {found.std:.3g}"
    if not found.trusted:
        return f"unknown: the estimate, {values}, is not reliable"
    return f"inputs of about {values}: {CONVENTIONS[found.convention]}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _rounded(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
