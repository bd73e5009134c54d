"""`dfkd evaluate`: measure accuracy on labelled images, as a gate in a pipeline too."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import NetworkArguments, taking
from dfkd_cli.errors import GateMissedError, UsageError

if TYPE_CHECKING:
    from dfkd_cli.evaluation.evaluate import Evaluation

_TOLERANCE = 1e-9  # in floating point, 0.93 - 0.91 is slightly more than 0.02
_GATES = "Quality gates (exit code 5 when missed)"


@taking(NetworkArguments)
def evaluate(
    arguments: NetworkArguments,
    student: Annotated[
        str, typer.Argument(metavar="STUDENT", help="Folder or file of a student, or any TEACHER of compress.")
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Labelled images: a folder with one subfolder per class (in alphabetical order), or cifar10:ROOT, "
            "cifar100:ROOT, mnist:ROOT, fashion-mnist:ROOT in torchvision's format.",
        ),
    ],
    teacher: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="Compare with this network (see compress --help).")
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
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images per batch.")] = 256,
    teacher_arch: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Architecture of TEACHER in place of --arch.", rich_help_panel=options.PANEL),
    ] = None,
) -> object:
    """Measure accuracy on labelled images; with --teacher also relative accuracy and agreement.

    A file that dfkd wrote contains all facts about its network. The options for these facts are then for the other
    network. When dfkd wrote neither, they are for both; --teacher-arch replaces --arch for TEACHER.
    """
    if max_drop is not None and teacher is None:
        raise UsageError("--max-drop needs --teacher, whose accuracy it compares with")
    facts = arguments.facts()

    from dfkd_cli import api

    evaluation = api.evaluate(
        student,
        data,
        teacher=teacher,
        device=arguments.device,
        batch_size=batch_size,
        teacher_arch=teacher_arch,
        note=_note,
        **facts,
    )
    missed = _missed_gates(evaluation, min_accuracy, max_drop)
    if not as_json:
        _print_table(asdict(evaluation))
    if missed:
        raise GateMissedError("; ".join(missed), evaluation)
    return evaluation if as_json else None


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
        ("parameters", f"{facts['parameters']:,}"),
        ("file size", None if facts["file_bytes"] is None else f"{facts['file_bytes'] / 1e6:,.2f} MB"),
    ]
    shown = [(name, text) for name, text in rows if text is not None]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for name, text in shown:
        print(f" {name:{widths[0]}}  {text:>{widths[1]}}")


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f} %"


def _missed_gates(result: Evaluation, min_accuracy: float | None, max_drop: float | None) -> list[str]:
    """Return one sentence per gate that the evaluation misses."""
    missed = []
    if min_accuracy is not None and result.accuracy < min_accuracy - _TOLERANCE:
        missed.append(f"accuracy {result.accuracy:.4f} is below --min-accuracy {min_accuracy:g}")
    if max_drop is not None and result.teacher_accuracy is not None:
        drop = result.teacher_accuracy - result.accuracy
        if drop > max_drop + _TOLERANCE:
            missed.append(
                f"accuracy {result.accuracy:.4f} is {drop:.4f} below the teacher's {result.teacher_accuracy:.4f}, "
                f"more than --max-drop {max_drop:g}"
            )
    return missed
