"""`dfkd benchmark`: how fast and how large networks are, side by side."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.cli import options
from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.benchmark import Speed
    from dfkd_cli.loading import LoadOptions


def benchmark(
    networks: Annotated[
        list[str], typer.Argument(metavar="NETWORK...", help="Any network dfkd compresses, students, ONNX files.")
    ],
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward, for the throughput.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.0, help="Time to measure each network for.")] = 5.0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: torch's choice.")] = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            help="Architecture of a state dict; repeat it, in order, when several networks need one.",
            rich_help_panel=options.PANEL,
        ),
    ] = None,
    num_classes: options.NumClasses = None,
    input_size: options.InputSize = None,
    mean: options.Mean = "0",
    std: options.Std = "1",
    output: options.Output = None,
    trust_pickle: options.TrustPickle = False,
) -> object:
    """Measure latency, throughput, size and memory of networks, in turns.

    Random images, single precision. Networks that dfkd wrote describe themselves; the flags are for the others.
    Normalisation costs the same whatever its numbers: --mean and --std can be left out.
    """
    flags = options.load_options(None, num_classes, input_size, mean, std, output, trust_pickle)

    import torch

    from dfkd_cli.benchmark import Speeds, benchmark
    from dfkd_cli.device import resolve_device
    from dfkd_cli.loading.sniff import is_onnx

    where = resolve_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    used = torch.get_num_threads()
    if where.type == "cuda" and any(map(is_onnx, networks)):
        print("note: ONNX files run on the CPU", file=sys.stderr)
    speeds = benchmark(_described(networks, flags, arch or []), where, batch_size, seconds)
    if as_json:
        return Speeds(str(where), used, str(torch.__version__), tuple(speeds))
    _print_table(speeds)
    print(f"on {where}, {used} thread{'s' if used > 1 else ''}, single precision")
    return None


def _described(networks: list[str], flags: LoadOptions, archs: list[str]) -> list[tuple[str, LoadOptions]]:
    """Each network with the flags that are about it."""
    from dataclasses import replace

    from dfkd_cli.loading.sniff import is_onnx
    from dfkd_cli.student import is_student

    foreign = [name for name in networks if not is_student(name) and not is_onnx(name)]
    if len(archs) > 1 and len(archs) != len(foreign):
        raise UsageError(
            f"--arch is given {len(archs)} times; give it once, or for each of the {len(foreign)} networks that "
            "dfkd did not write"
        )
    of = dict(zip(foreign, archs * len(foreign) if len(archs) == 1 else archs, strict=False))
    own = type(flags)(mean=(0.0,), std=(1.0,))  # for exported files that say nothing
    return [(name, replace(flags, arch=of.get(name)) if name in foreign else own) for name in networks]


def _print_table(speeds: list[Speed]) -> None:
    from pathlib import PurePath

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    table.add_column(no_wrap=True)
    for speed in speeds:
        table.add_column(PurePath(speed.source).name, justify="right", overflow="fold")
    for name, texts in (
        ("form", [speed.arch or speed.kind for speed in speeds]),
        ("parameters", [f"{speed.parameters:,}" for speed in speeds]),
        ("MACs per image, millions", [_millions(speed.macs) for speed in speeds]),
        ("file, MB", [_millions(speed.file_bytes) for speed in speeds]),
        ("latency, ms, median", [f"{speed.latency_ms:,.2f}" for speed in speeds]),
        ("latency, ms, 95 %", [f"{speed.latency_p95_ms:,.2f}" for speed in speeds]),
        ("throughput, images/s", [f"{speed.images_per_s:,.0f}" for speed in speeds]),
        ("in batches of", [f"{speed.batch_size}" for speed in speeds]),
        ("memory of a batch, MB", [_millions(speed.memory_bytes) for speed in speeds]),
    ):
        table.add_row(name, *texts)
    Console(highlight=False).print(table)


def _millions(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.2f}"
