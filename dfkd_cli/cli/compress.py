"""`dfkd compress`: a smaller network from a teacher, without the images it was trained on."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.cli.arguments import WATCH, JobArguments, parse_seconds, taking
from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.report.report import Report


@taking(JobArguments)
def compress(
    arguments: JobArguments,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the student, its report and pictures.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in --out.")] = False,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Go on with the run that was to write DIR; otherwise the same arguments."),
    ] = None,
    checkpoint_every: Annotated[
        str, typer.Option(metavar="TIME|STEPS", help="How often to save what --resume needs, e.g. 10m or 500.")
    ] = "5m",
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write every number for TensorBoard into DIR.", rich_help_panel=WATCH),
    ] = None,
) -> object:
    """Train a small student of TEACHER on images made from TEACHER itself, or on unlabelled pictures (--pool)."""
    folder, interval = output_folder(out, resume), parse_interval(checkpoint_every)
    if tensorboard is not None:
        check_tensorboard(tensorboard, folder)
    with arguments.make_progress() as progress:
        job = arguments.job(folder)

        from dfkd_cli.compression import compress as command
        from dfkd_cli.machine.files import printable
        from dfkd_cli.training.checkpoint import Interval
        from dfkd_cli.training.tensorboard_log import TensorBoardLog

        job = replace(job, overwrite=overwrite, resume=resume is not None, checkpoint_every=Interval(*interval))
        with TensorBoardLog(tensorboard, progress) if tensorboard else nullcontext(progress) as listener:
            report = command.compress(job, listener)
    if arguments.as_json:
        return report
    if not arguments.quiet:
        print(printable(_summary(report, folder)))
    return None


def parse_interval(text: str) -> tuple[float | None, int | None]:
    """Seconds of a time such as 10m, or a number of steps; the other is None. Raises UsageError for anything else."""
    seconds = parse_seconds(text)
    if seconds is None and not (text.isdecimal() and int(text) > 0):
        raise UsageError(f"--checkpoint-every {text}: write a time such as 10m, or a number of steps such as 500")
    return (seconds, None) if seconds is not None else (None, int(text))


def output_folder(out: Path | None, resume: Path | None) -> Path:
    """The folder of `--out` or `--resume`. Raises UsageError when both are missing or say different things."""
    if resume is not None and out is not None and os.path.abspath(resume) != os.path.abspath(out):
        raise UsageError(f"--resume {resume} and --out {out} are different folders; --resume alone is enough")
    folder = resume or out
    if folder is None:
        raise UsageError("say with --out DIR where the student goes, or with --resume DIR which run to go on with")
    return folder


def check_tensorboard(tensorboard: Path, out: Path) -> None:
    """Raises UsageError when the curves would fill the folder that only the finished result may fill."""
    if Path(os.path.realpath(tensorboard)).is_relative_to(os.path.realpath(out)):
        raise UsageError(
            f"--tensorboard {tensorboard} is in the output folder {out}, which must stay empty until the run has "
            f"finished; use another folder, such as {out}-tensorboard"
        )


def _summary(report: Report, out: Path) -> str:
    student, teacher = report.student, report.teacher
    lines = [
        f"teacher  {teacher.parameters:>12,} parameters{_accuracy(teacher.accuracy)}",
        f"student  {student.parameters:>12,} parameters{_accuracy(student.accuracy)}",
    ]
    if report.relative_accuracy is not None:
        lines.append(f"relative accuracy {report.relative_accuracy:.4f}")
    lines += [
        f"agreement {report.agreement:.4f} on {report.agreement_on}",
        f"images   {report.images.generated:,} {'seen' if report.images.pool else 'generated'}, "
        f"{report.images.kept:,} kept",
        f"time     {report.time.total_s:.0f} s, {report.time.synthesis_s:.0f} s of it for images",
        f"written  {out / 'student.safetensors'}, {out / 'report.html'}, {out / 'samples.png'}",
    ]
    return "\n".join(lines)


def _accuracy(value: float | None) -> str:
    return "" if value is None else f", accuracy {value:.4f}"
