"""`dfkd benchmark`: compare the speed and size of networks."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import ImageArguments, LabelArguments, SharedFacts
from dfkd_cli.cli.signature import taking
from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.evaluation.benchmark import EvaluationData, Speed
    from dfkd_cli.loading import LoadOptions

_FIRST, _NAME = 24, 16  # characters: of the column that names the figures, and that a network's name has at least
_OF_IMAGES = (  # the arguments that are about labelled images, so that they need --data
    "plot",
    "crop_pct",
    "interpolation",
    "crop_mode",
    *(field.name for kind in (ImageArguments, LabelArguments) for field in fields(kind)),
)


@dataclass(frozen=True, kw_only=True)
class MeasurementArguments:
    """What is measured of which networks, and where."""

    networks: Annotated[
        list[str], typer.Argument(metavar="NETWORK...", help="Students, ONNX files, or any TEACHER of compress.")
    ]
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images per batch for the throughput.")] = 64
    seconds: Annotated[float, typer.Option(metavar="S", min=0.0, help="Seconds of measurement per network.")] = 5.0
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads. Default: that of torch.")] = None
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Labelled images for the accuracy, as for dfkd evaluate."),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a plot of accuracy (--data) against latency, e.g. speed.png."),
    ] = None
    device: options.Device = "auto"
    as_json: options.Json = False
    arch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Architecture of a state dict; repeat it in the order of the networks that need one.",
            rich_help_panel=options.PANEL,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments(LabelArguments, ImageArguments, SharedFacts, MeasurementArguments):
    """The arguments of `benchmark`. All networks share the facts, except the architecture."""

    def evaluation_data(self) -> EvaluationData | None:
        """Return the labelled images, None without --data.

        Raises UsageError for a wrong flag, and for an option about these images without --data.
        """
        given = [
            field.name
            for field in fields(self)
            if field.name in _OF_IMAGES and getattr(self, field.name) != field.default
        ]
        if self.data is None:
            if given:
                flag = f"--{given[0].replace('_', '-')}"
                raise UsageError(f"{flag} needs --data, the labelled images that accuracy is measured on")
            return None
        reading = self.reading()

        from dfkd_cli.data.label_options import LabelOptions
        from dfkd_cli.data.reading import ReadOptions
        from dfkd_cli.evaluation.benchmark import EvaluationData

        return EvaluationData(self.data, ReadOptions(**reading), LabelOptions(**self.label_values()))


@taking(BenchmarkArguments)
def benchmark(arguments: BenchmarkArguments) -> object:
    """Compare latency, throughput, size and memory of networks.

    Measures the networks in turns, on random images in single precision. The options for facts about a network do not
    apply to files that dfkd wrote, except how image files are scaled and cropped. --mean and --std have no effect on
    the speed, only on the accuracy (--data).
    """
    data = arguments.evaluation_data()
    if arguments.plot is not None:
        _check_plot(arguments.plot)
    networks = _described(arguments)

    import torch

    from dfkd_cli.evaluation.benchmark import Speeds, benchmark
    from dfkd_cli.loading.sniff import is_onnx
    from dfkd_cli.machine.device import resolve_device
    from dfkd_cli.report.quantities import counted

    where = resolve_device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    used = torch.get_num_threads()
    if where.type == "cuda" and any(map(is_onnx, arguments.networks)):
        _note("ONNX files run on the CPU, whatever --device says")
    speeds = benchmark(networks, where, arguments.batch_size, arguments.seconds, data, _note)
    if arguments.plot is not None:
        _write_plot(speeds, arguments.plot)
    _print_assumptions(speeds)
    if arguments.as_json:
        return Speeds(str(where), used, str(torch.__version__), tuple(speeds))
    _print_table(speeds)
    print(f"on {where}, {counted(used, 'thread')}, single precision")
    return None


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _check_plot(plot: Path) -> None:
    from dfkd_cli.evaluation.speed_plot import check_plot

    check_plot(plot)


def _write_plot(speeds: list[Speed], plot: Path) -> None:
    from dfkd_cli.evaluation.speed_plot import write_plot  # matplotlib takes a second

    write_plot(speeds, plot)


def _print_assumptions(speeds: list[Speed]) -> None:
    for speed in speeds:
        if speed.input_size_found.startswith("assumed"):
            size = f"the input size {_shape(speed.input_size)} is {speed.input_size_found}"
            _note(f"{speed.source}: {size}; check with --input-size")


def _described(arguments: BenchmarkArguments) -> list[tuple[str, LoadOptions]]:
    """Return each network with the flags that apply to it. Raises UsageError for a wrong flag."""
    flags = arguments.load_options()

    from dfkd_cli.loading import LoadOptions
    from dfkd_cli.loading.own_files import is_student
    from dfkd_cli.loading.sniff import is_onnx

    networks, archs = arguments.networks, arguments.arch or []
    foreign = [name for name in networks if not is_student(name) and not is_onnx(name)]
    if len(archs) > 1 and len(archs) != len(foreign):
        raise UsageError(
            f"--arch appears {len(archs)} times; give it once, or once for each network that dfkd did not write "
            f"({len(foreign)} here)"
        )
    of = dict(zip(foreign, archs * len(foreign) if len(archs) == 1 else archs, strict=False))
    with_data = arguments.data is not None
    if not with_data:  # the speed depends on neither, so a file need not state them
        flags = replace(flags, mean=flags.mean or (0.0,), std=flags.std or (1.0,))

    def flags_of(name: str) -> LoadOptions:
        if name in foreign:
            return replace(flags, arch=of.get(name))
        if not with_data:
            return LoadOptions(mean=(0.0,), std=(1.0,))  # for exported files without these facts
        return flags if is_onnx(name) else flags.preprocessing_only()  # an ONNX file of dfkd's ignores the other flags

    return [(name, flags_of(name)) for name in networks]


def _print_table(speeds: list[Speed]) -> None:
    from pathlib import PurePath

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dfkd_cli.machine.files import printable

    rows = _rows(speeds)
    console, table = Console(highlight=False), Table(box=None)
    figures = [max(map(len, column)) for column in zip(*(texts for _, texts in rows), strict=True)]
    room = max(_NAME, (console.width - _FIRST) // len(speeds) - 2)
    names = [printable(PurePath(speed.source).name) for speed in speeds]
    widths = [max(width, min(len(name), room)) for width, name in zip(figures, names, strict=True)]
    table.add_column(width=_FIRST)
    for name, width in zip(names, widths, strict=True):
        table.add_column(Text(name), justify="right", overflow="fold", width=width)  # Text: a name is not markup
    for name, texts in rows:
        table.add_row(name, *map(Text, texts))
    # Wider than the terminal if necessary: a cut figure would be a wrong figure.
    console.width = max(console.width, _FIRST + 2 + sum(width + 2 for width in widths))
    console.print(table)


def _rows(speeds: list[Speed]) -> list[tuple[str, list[str]]]:
    return [
        ("form", [speed.arch or speed.kind for speed in speeds]),
        ("images", [_shape(speed.input_size) for speed in speeds]),
        ("parameters", [f"{speed.parameters:,}" for speed in speeds]),
        ("MACs per image, millions", [_millions(speed.macs) for speed in speeds]),
        ("file, MB", [_millions(speed.file_bytes) for speed in speeds]),
        ("latency, ms, median", [f"{speed.latency_ms:,.2f}" for speed in speeds]),
        ("latency, ms, 95 %", [f"{speed.latency_p95_ms:,.2f}" for speed in speeds]),
        ("throughput, images/s", [f"{speed.images_per_s:,.0f}" for speed in speeds]),
        ("in batches of", [f"{speed.batch_size}" for speed in speeds]),
        ("memory of a batch, MB", [_millions(speed.memory_bytes) for speed in speeds]),
        *_accuracy_row(speeds),
    ]


def _accuracy_row(speeds: list[Speed]) -> list[tuple[str, list[str]]]:
    from dfkd_cli.report.quantities import share

    measured = any(speed.accuracy is not None for speed in speeds)
    return [("accuracy", [share(speed.accuracy) for speed in speeds])] if measured else []


def _shape(size: tuple[int, int, int]) -> str:
    return "x".join(map(str, size))


def _millions(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.2f}"
