"""`dfkd compress`: a smaller network from a teacher, without the images it was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.cli.arguments import JobArguments, taking

if TYPE_CHECKING:
    from dfkd_cli.report import Report


@taking(JobArguments)
def compress(
    arguments: JobArguments,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the student, its report and pictures.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in --out.")] = False,
) -> object:
    """Train a small student of TEACHER on images made from TEACHER itself."""
    with arguments.make_progress() as progress:
        job = replace(arguments.job(out), overwrite=overwrite)

        from dfkd_cli import run

        report = run.compress(job, progress)
    if arguments.as_json:
        return report
    if not arguments.quiet:
        print(_summary(report, out))
    return None


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
        f"images   {report.images.generated:,} generated, {report.images.kept:,} kept",
        f"time     {report.time.total_s:.0f} s, {report.time.synthesis_s:.0f} s of it for images",
        f"written  {out / 'student.safetensors'}, {out / 'report.md'}, {out / 'samples.png'}",
    ]
    return "\n".join(lines)


def _accuracy(value: float | None) -> str:
    return "" if value is None else f", accuracy {value:.4f}"
