"""`dfkd compress`: a smaller network from a teacher, without the images it was trained on."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dfkd_cli.cli import options
from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.report import Report

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def compress(
    teacher: Annotated[
        str,
        typer.Argument(
            metavar="TEACHER",
            help="A checkpoint, TorchScript or .pt2 file, a folder with config.json, or timm:NAME, hf-hub:NAME.",
        ),
    ],
    student: Annotated[str, typer.Option(help="Architecture to train, any name timm knows, or cifar_resnet20, ...")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the student, its report and pictures.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a YAML file.")] = "ssd",
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for the whole run, e.g. 90s, 30m, 2h. Default: the recipe's steps."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's value, e.g. --set train.lr=0.05."),
    ] = None,
    eval_data: Annotated[
        str | None,
        typer.Option("--eval", metavar="DIR", help="Labelled images to measure the result on; used for nothing else."),
    ] = None,
    pool: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Unlabelled pictures to learn from, for recipe unlabeled."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in --out.")] = False,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Go on with the run that was to write DIR; otherwise the same arguments."),
    ] = None,
    checkpoint_every: Annotated[
        str, typer.Option(metavar="TIME|STEPS", help="How often to save what --resume needs, e.g. 10m or 500.")
    ] = "5m",
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
    device: options.Device = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 where this machine is faster with it.")
    ] = "auto",
    arch: options.Arch = None,
    num_classes: options.NumClasses = None,
    input_size: options.InputSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    output: options.Output = None,
    trust_pickle: options.TrustPickle = False,
) -> None:
    """Train a small student of TEACHER on images made from TEACHER itself, or on unlabelled pictures (--pool)."""
    changes = list(overrides or [])
    if budget is not None:
        changes.append(f"train.budget={parse_budget(budget)}")
    folder = output_folder(out, resume)
    load = options.load_options(arch, num_classes, input_size, mean, std, output, trust_pickle)

    from dfkd_cli.checkpoint import Interval
    from dfkd_cli.cli.progress import make_progress
    from dfkd_cli.job import Job
    from dfkd_cli.run import compress

    job = Job(
        teacher=teacher,
        load=load,
        student=student,
        recipe=recipe,
        overrides=tuple(changes),
        out=folder,
        overwrite=overwrite,
        seed=seed,
        device=device,
        precision=precision,
        eval_data=eval_data,
        pool=pool,
        resume=resume is not None,
        checkpoint_every=Interval(*parse_interval(checkpoint_every)),
        command=shlex.join(["dfkd", *sys.argv[1:]]),
    )
    with make_progress() as progress:
        report = compress(job, progress)
    print(_summary(report, folder))


def parse_budget(text: str) -> float:
    """Seconds of a time such as 90s, 30m or 1.5h. Raises UsageError for anything else."""
    seconds = _seconds(text)
    if seconds is None:
        raise UsageError(f"--budget {text}: write a time such as 90s, 30m or 2h")
    return seconds


def parse_interval(text: str) -> tuple[float | None, int | None]:
    """Seconds of a time such as 10m, or a number of steps; the other is None. Raises UsageError for anything else."""
    seconds = _seconds(text)
    if seconds is None and not (text.isdecimal() and int(text) > 0):
        raise UsageError(f"--checkpoint-every {text}: write a time such as 10m, or a number of steps such as 500")
    return (seconds, None) if seconds is not None else (None, int(text))


def output_folder(out: Path | None, resume: Path | None) -> Path:
    """The folder of `--out` or `--resume`. Raises UsageError when both are missing or say different things."""
    if resume is not None and out is not None and resume != out:
        raise UsageError(f"--resume {resume} and --out {out} are different folders; --resume alone is enough")
    folder = resume or out
    if folder is None:
        raise UsageError("say with --out DIR where the student goes, or with --resume DIR which run to go on with")
    return folder


def _seconds(text: str) -> float | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip().lower())
    if match is None or float(match[1]) == 0.0:
        return None
    return float(match[1]) * _SECONDS[match[2]]


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
        f"written  {out / 'student.safetensors'}, {out / 'report.md'}, {out / 'samples.png'}",
    ]
    return "\n".join(lines)


def _accuracy(value: float | None) -> str:
    return "" if value is None else f", accuracy {value:.4f}"
