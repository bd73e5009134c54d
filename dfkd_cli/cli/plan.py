"""`dfkd plan`: forecast what a compression takes."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import JobArguments
from dfkd_cli.cli.signature import taking
from dfkd_cli.cli.wrapping import print_rows
from dfkd_cli.config.folders import default_folder

if TYPE_CHECKING:
    from dfkd_cli.compression.plan import Forecast, NetworkSize

COLUMN = 9  # where the figures begin
PHASES = {
    "loading": "loading",
    "warmup": "warm-up",
    "synthesis": "images",
    "distillation": "student steps",
    "evaluation": "evaluation",
    "saving": "saving",
}


@taking(JobArguments)
def plan(
    arguments: JobArguments,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Check this folder as compress does; write nothing.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Accept an existing result in --out.", rich_help_panel=options.OUTPUT)
    ] = False,
) -> object:
    """Forecast time, memory and sizes of `dfkd compress` with the same arguments.

    Loads both networks and measures some steps, which takes about half a minute, or longer when torch.compile is on.
    Writes nothing. Fails with the same exit code when compress would fail before the training.
    """
    with arguments.make_progress() as progress:
        values, load, reading = arguments.job_values(), arguments.load_options(), arguments.reading()

        from dfkd_cli.compression.make_job import make_job
        from dfkd_cli.compression.output_folder import OutputFolder
        from dfkd_cli.compression.plan import forecast
        from dfkd_cli.data.label_options import LabelOptions
        from dfkd_cli.data.reading import ReadOptions
        from dfkd_cli.data.segmented import MaskOptions

        if out is not None:
            OutputFolder(out, overwrite)
        arguments.prepare_process()
        folder = out or default_folder(arguments.teacher, arguments.student)
        labels = LabelOptions(**arguments.label_values())
        masks = MaskOptions(tuple(arguments.ignore_index or ()), arguments.class_names)
        described = {"read_options": ReadOptions(**reading), "labels": labels, "masks": masks}
        job = make_job(**values, **described, load=load, out=folder)
        foreseen = forecast(job, progress.note)
    if arguments.as_json:
        return foreseen
    print_rows(_rows(foreseen, list(job.overrides)), COLUMN)
    return None


def _rows(foreseen: Forecast, overrides: list[str]) -> list[tuple[str, str]]:
    from dfkd_cli.report.quantities import duration

    total, *phases = asdict(foreseen.seconds).items()
    shown = [f"{PHASES[name]} {duration(seconds)}" for name, seconds in phases if seconds]
    changes = [word for override in overrides for word in ("--set", override)]
    task = [] if foreseen.task == "classification" else ["--task", foreseen.task]
    show = shlex.join(["dfkd", "recipes", "show", foreseen.recipe, "--resolved", *task, *changes])
    every = foreseen.values["train"]["round_every"]
    return [
        ("time", f"{duration(total[1])}: {', '.join(shown)}"),
        (
            "steps",
            f"{foreseen.steps:,} of {_milliseconds(foreseen.step_s)} each; "
            f"one round of {_milliseconds(foreseen.round_s)} every {every:,} steps",
        ),
        ("memory", f"{foreseen.peak_bytes / 1e6:,.0f} MB on {foreseen.device}, {foreseen.precision}"),
        ("teacher", _size(foreseen.teacher)),
        ("student", _size(foreseen.student)),
        ("recipe", f"{foreseen.recipe}; all values: {show}"),
        *(("note", note) for note in foreseen.notes),
    ]


def _size(network: NetworkSize) -> str:
    from dfkd_cli.report.quantities import megabytes

    sizes = f"{network.parameters:,} parameters, {network.macs:,} MACs per image"
    costs = f"{network.latency_ms:.2f} ms for one image, file {megabytes(network.file_bytes)}"
    return ", ".join([*filter(None, [network.arch]), sizes, costs])


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"
