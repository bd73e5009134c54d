"""`dfkd evaluate`: how good a network is on labelled images, for people, for tools, and as a gate in a pipeline."""

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
    from dfkd_cli.loading import LoadOptions

_TOLERANCE = 1e-9  # 0.93 - 0.91 is a little more than 0.02 in floating point
_GATES = "Gates: exit code 5 when missed"


@taking(NetworkArguments)
def evaluate(
    arguments: NetworkArguments,
    student: Annotated[
        str, typer.Argument(metavar="STUDENT", help="Folder or file of a student, or any network that dfkd compresses.")
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="One folder of pictures per class, numbered alphabetically; or cifar10:ROOT, cifar100:ROOT, "
            "mnist:ROOT, fashion-mnist:ROOT as torchvision stores them.",
        ),
    ],
    teacher: Annotated[str | None, typer.Option(help="Compare with this network, in any form.")] = None,
    as_json: options.Json = False,
    min_accuracy: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least accuracy, a fraction.", rich_help_panel=_GATES)
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Most that accuracy may be below the teacher's, a fraction.", rich_help_panel=_GATES
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward.")] = 256,
    teacher_arch: Annotated[
        str | None,
        typer.Option(help="Architecture of TEACHER, where --arch is STUDENT's.", rich_help_panel=options.PANEL),
    ] = None,
) -> object:
    """Measure accuracy on labelled images, and with --teacher relative accuracy and agreement.

    A network that dfkd wrote says everything about itself. The options from --arch on are for the other one, or for
    both when dfkd wrote neither; --teacher-arch then tells TEACHER's architecture from STUDENT's.
    """
    if max_drop is not None and teacher is None:
        raise UsageError("--max-drop compares with a teacher; give --teacher too")
    if teacher_arch is not None and teacher is None:
        raise UsageError("--teacher-arch describes a teacher; give --teacher too")
    flags = arguments.load_options()

    from dfkd_cli.evaluation.evaluate import evaluate as evaluate_networks

    student_flags, teacher_flags = _who_gets(flags, teacher_arch, student, teacher)
    reference = None if teacher is None else (teacher, teacher_flags)
    evaluation = evaluate_networks((student, student_flags), data, reference, arguments.device, batch_size, _note)
    missed = _missed_gates(evaluation, min_accuracy, max_drop)
    if not as_json:
        _print_table(asdict(evaluation))
    if missed:
        raise GateMissedError("; ".join(missed), evaluation)
    return evaluation if as_json else None


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _who_gets(
    flags: LoadOptions, teacher_arch: str | None, student: str, teacher: str | None
) -> tuple[LoadOptions, LoadOptions]:
    """The flags for student and teacher: none for the one that dfkd wrote, if the other one needs them."""
    from dataclasses import replace

    from dfkd_cli.students.student import is_student

    teacher_flags = replace(flags, arch=teacher_arch or flags.arch)
    if teacher is None or is_student(student) == is_student(teacher):
        return flags, teacher_flags
    nothing = type(flags)()
    return (nothing, teacher_flags) if is_student(student) else (flags, nothing)


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
    """What is below its bar."""
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
