"""`dfkd plan`: what a compression would take, before it is started."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.cli.arguments import JobArguments, taking

if TYPE_CHECKING:
    from dfkd_cli.compression.plan import Forecast, NetworkSize


@taking(JobArguments)
def plan(
    arguments: JobArguments,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Checked as compress would, and not written.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="As for compress.")] = False,
) -> object:
    """Say what compress would do with the same arguments: the whole recipe, both networks' size, time and memory.

    A few steps are measured, which takes about half a minute and longer where the run would be compiled. Nothing is
    written.
    """
    with arguments.make_progress() as progress:
        job = arguments.job(out or Path("out"))

        from dfkd_cli.compression.output_folder import OutputFolder
        from dfkd_cli.compression.plan import forecast

        if out is not None:
            OutputFolder(out, overwrite)
        foreseen = forecast(job, progress.note)
    if arguments.as_json:
        return foreseen
    _print(foreseen)
    return None


def _print(foreseen: Forecast) -> None:
    import yaml
    from rich.console import Console
    from rich.table import Table

    print(yaml.safe_dump(foreseen.values, sort_keys=False))
    sizes = Table(box=None)
    for title in ("", "parameters", "MACs per image", "file"):
        sizes.add_column(title, justify="right" if title else "left")
    for name, network in (("teacher", foreseen.teacher), ("student", foreseen.student)):
        sizes.add_row(f"{name} {network.arch or ''}", *_row(network))
    Console(highlight=False, markup=False).print(sizes)
    print(
        f"\nsteps    {foreseen.steps:,} of {1000 * foreseen.step_s:.0f} ms, with new images every "
        f"{foreseen.values['train']['round_every']} steps in {1000 * foreseen.refresh_s:.0f} ms"
    )
    total, *parts = asdict(foreseen.seconds).items()
    print(f"time     {duration(total[1])}: {', '.join(f'{name} {duration(value)}' for name, value in parts)}")
    print(f"memory   {foreseen.peak_bytes / 1e6:,.0f} MB on {foreseen.device}, computing in {foreseen.precision}")
    for note in foreseen.notes:
        print(f"note     {note}")


def _row(network: NetworkSize) -> tuple[str, str, str]:
    size = "-" if network.file_bytes is None else f"{network.file_bytes / 1e6:,.2f} MB"
    return f"{network.parameters:,}", f"{network.macs:,}", size


def duration(seconds: float) -> str:
    """A time for people: 4.2 s, 45 s, 12 min, 3.5 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
