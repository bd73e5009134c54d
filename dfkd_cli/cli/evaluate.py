"""`dfkd evaluate`: measure accuracy, or agreement with the teacher, as a gate in a pipeline too."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import ImageArguments, taking
from dfkd_cli.errors import GateMissedError, UsageError

if TYPE_CHECKING:
    from dfkd_cli.evaluation.evaluate import Evaluation

_TOLERANCE = 1e-9  # in floating point, 0.93 - 0.91 is slightly more than 0.02
_GATES = "Quality gates (exit code 5 when missed)"


@taking(ImageArguments)
def evaluate(
    arguments: ImageArguments,
    student: Annotated[
        str, typer.Argument(metavar="STUDENT", help="Folder or file of a student, or any TEACHER of compress.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Labelled images: a folder with one subfolder per class (in alphabetical order), or cifar10:ROOT, "
            "cifar100:ROOT, mnist:ROOT, fashion-mnist:ROOT in torchvision's format.",
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="Compare with this network (see compress --help).")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Unlabelled images in any sub-folders, for the agreement with --teacher without --data."
        ),
    ] = None,
    as_json: options.Json = False,
    min_accuracy: Annotated[
        float | None, typer.Option(metavar="SHARE", min=0, max=1, help="Smallest accuracy.", rich_help_panel=_GATES)
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Largest difference of the teacher's and the student's accuracy.",
            rich_help_panel=_GATES,
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Smallest share of images with the teacher's prediction.",
            rich_help_panel=_GATES,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images per batch.")] = 256,
    teacher_arch: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Architecture of TEACHER in place of --arch.", rich_help_panel=options.PANEL),
    ] = None,
    teacher_prefix: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Network in TEACHER in place of --prefix.", rich_help_panel=options.PANEL),
    ] = None,
) -> object:
    """Measure accuracy on labelled images; with --teacher also relative accuracy and agreement.

    Without --data, check what needs no labels: the file, its report, size, latency, and the agreement with the teacher
    on the images in the calibration.safetensors beside STUDENT, or on those of --images. This is not accuracy.

    A file that dfkd wrote contains all facts about its network. The options for these facts are then for the other
    network. When dfkd wrote neither, they are for both; --teacher-arch and --teacher-prefix replace --arch and --prefix
    for TEACHER.
    """
    _check_gates(data, teacher, min_accuracy, max_drop, min_agreement)
    facts = arguments.facts()

    from dfkd_cli import api

    evaluation = api.evaluate(
        student,
        data,
        teacher=teacher,
        images=images,
        device=arguments.device,
        batch_size=batch_size,
        teacher_arch=teacher_arch,
        teacher_prefix=teacher_prefix,
        note=_note,
        **arguments.reading(),
        **facts,
    )
    missed = _missed_gates(evaluation, min_accuracy, max_drop, min_agreement)
    if not as_json:
        _print_table(asdict(evaluation))
    if missed:
        raise GateMissedError("; ".join(missed), evaluation)
    return evaluation if as_json else None


def _check_gates(
    data: str | None,
    teacher: str | None,
    min_accuracy: float | None,
    max_drop: float | None,
    min_agreement: float | None,
) -> None:
    """Raise UsageError for a gate on a figure that will not be measured."""
    for flag, bar in (("--min-accuracy", min_accuracy), ("--max-drop", max_drop)):
        if bar is not None and data is None:
            raise UsageError(f"{flag} needs --data, the labelled images that accuracy is measured on")
    if max_drop is not None and teacher is None:
        raise UsageError("--max-drop needs --teacher, whose accuracy it compares with")
    if min_agreement is not None and data is not None and teacher is None:
        raise UsageError("--min-agreement with --data needs --teacher, whose predictions it compares with")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _print_table(facts: dict[str, Any]) -> None:
    rows = [
        ("images", f"{facts['images']:,}"),
        ("accuracy", _percent(facts["accuracy"])),
        ("accuracy, top 5", _percent(facts["accuracy_top5"])),
        ("teacher's accuracy", _percent(facts["teacher_accuracy"])),
        ("relative accuracy", _percent(facts["relative_accuracy"])),
        ("agreement with the teacher", _percent(facts["agreement"])),
        ("mean KL divergence", None if facts["kl"] is None else f"{facts['kl']:.4f} nats"),
        ("parameters", f"{facts['parameters']:,}"),
        ("multiply-accumulates", None if facts["macs"] is None else f"{facts['macs'] / 1e6:,.2f} M"),
        ("latency of one image", None if facts["latency_ms"] is None else f"{facts['latency_ms']:.2f} ms"),
        ("file size", None if facts["file_bytes"] is None else f"{facts['file_bytes'] / 1e6:,.2f} MB"),
    ]
    shown = [(name, text) for name, text in rows if text is not None]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for name, text in shown:
        print(f" {name:{widths[0]}}  {text:>{widths[1]}}")
    if facts["accuracy"] is None:
        print(f"The agreement was measured on {facts['agreement_on']}.")
        if facts["report_matches"]:
            print("The student is that of the report beside it.")
        print(f"{facts['remark'][:1].upper()}{facts['remark'][1:]}. Agreement is not accuracy.")


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f} %"


def _missed_gates(
    result: Evaluation, min_accuracy: float | None, max_drop: float | None, min_agreement: float | None
) -> list[str]:
    """Return one sentence per gate that the evaluation misses."""
    missed = []
    if min_accuracy is not None and result.accuracy is not None and result.accuracy < min_accuracy - _TOLERANCE:
        missed.append(f"accuracy {result.accuracy:.4f} is below --min-accuracy {min_accuracy:g}")
    if min_agreement is not None and result.agreement is not None and result.agreement < min_agreement - _TOLERANCE:
        missed.append(f"agreement {result.agreement:.4f} is below --min-agreement {min_agreement:g}")
    if max_drop is not None and result.accuracy is not None and result.teacher_accuracy is not None:
        drop = result.teacher_accuracy - result.accuracy
        if drop > max_drop + _TOLERANCE:
            missed.append(
                f"accuracy {result.accuracy:.4f} is {drop:.4f} below the teacher's {result.teacher_accuracy:.4f}, "
                f"more than --max-drop {max_drop:g}"
            )
    return missed
