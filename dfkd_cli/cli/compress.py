"""`dfkd compress`: train a student of a teacher without the teacher's training data."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import JobArguments
from dfkd_cli.cli.signature import taking
from dfkd_cli.cli.wrapping import print_rows
from dfkd_cli.config.folders import default_folder
from dfkd_cli.config.times import parse_interval
from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.report.report import Report

COLUMN = 11  # where the figures begin


@taking(JobArguments)
def compress(
    arguments: JobArguments,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="New folder for the student, its report and images. Default: one named after teacher and student.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing result in --out.", rich_help_panel=options.OUTPUT)
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="In place of --out: continue the interrupted run with --out DIR and the same other arguments.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    checkpoint_every: Annotated[
        str,
        typer.Option(
            metavar="TIME|STEPS",
            help="Interval between two checkpoints for --resume, e.g. 10m or 500.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = "5m",
    no_calibration: Annotated[
        bool,
        typer.Option(
            "--no-calibration",
            help="Leave out calibration.safetensors, about 1,000 images with TEACHER's logits.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write all metrics to DIR for TensorBoard.", rich_help_panel=options.MESSAGES
        ),
    ] = None,
) -> object:
    """Train a small student of TEACHER on images generated from TEACHER, or on unlabelled images (--pool)."""
    folder = output_folder(out, resume) or default_folder(arguments.teacher, arguments.student)
    parse_interval(checkpoint_every)  # before the imports below, which take seconds
    if tensorboard is not None:
        check_tensorboard(tensorboard, folder)
    with arguments.make_progress() as progress:
        values = arguments.job_values() | arguments.facts() | arguments.mask_values()
        values |= arguments.reading() | arguments.label_values()

        from dfkd_cli.compression import interface
        from dfkd_cli.machine.files import printable
        from dfkd_cli.training.tensorboard_log import TensorBoardLog

        arguments.prepare_process()
        with TensorBoardLog(tensorboard, progress) if tensorboard else nullcontext(progress) as listener:
            report = interface.compress(
                **values,
                out=folder,
                overwrite=overwrite,
                resume=resume is not None,
                checkpoint_every=checkpoint_every,
                calibration=not no_calibration,
                listener=listener,
            )
    if arguments.as_json or report is None:
        return report
    if not arguments.quiet:
        print_rows([(label, printable(text)) for label, text in _rows(report, folder)], COLUMN)
    return None


def output_folder(out: Path | None, resume: Path | None) -> Path | None:
    """Return the folder of `--out` or `--resume`, None without both. Raises UsageError when they are different."""
    if resume is not None and out is not None and os.path.abspath(resume) != os.path.abspath(out):
        raise UsageError(f"--resume {resume} and --out {out} are different folders; give --resume only")
    return resume or out


def check_tensorboard(tensorboard: Path, out: Path) -> None:
    """Raise UsageError when the TensorBoard folder is inside the output folder."""
    if Path(os.path.realpath(tensorboard)).is_relative_to(os.path.realpath(out)):
        raise UsageError(
            f"--tensorboard {tensorboard} is inside the output folder {out}, which must be empty until the run "
            f"ends; choose another folder, such as {out}-tensorboard"
        )


def _rows(report: Report, out: Path) -> list[tuple[str, str]]:
    from dfkd_cli.report.quantities import duration, megabytes, share

    student, teacher, images = report.student, report.teacher, report.images
    measure = report.measure()
    relative = "" if measure.relative is None else f", relative {measure.name} {share(measure.relative)}"
    seconds = report.time
    written = [str(out / name) for name in ("student.safetensors", "report.html", "samples.png")]
    if report.calibration is not None:
        written.append(f"{out / 'calibration.safetensors'} ({megabytes(report.calibration.file_bytes)})")
    return [
        ("teacher", f"{teacher.parameters:,} parameters{_measured(measure.name, measure.teacher)}"),
        ("student", f"{student.parameters:,} parameters{_measured(measure.name, measure.student)}{relative}"),
        ("agreement", f"{share(report.agreement)} on {report.agreement_on}"),
        ("images", f"{images.generated:,} {'read' if images.pool else 'generated'}, {images.kept:,} kept"),
        ("time", f"{duration(seconds.total_s)}, of which {duration(seconds.synthesis_s)} for images"),
        ("written", ", ".join(written)),
    ]


def _measured(name: str, value: float | None) -> str:
    from dfkd_cli.report.quantities import share

    return "" if value is None else f", {name} {share(value)}"
