"""`dfkd evaluate`: measure accuracy, or agreement with the teacher, as a gate in a pipeline too."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import EvaluationArguments, taking
from dfkd_cli.cli.evaluation_table import missed_gates, print_evaluation
from dfkd_cli.errors import GateMissedError, UsageError

_GATES = "Quality gates (exit code 5 when missed)"


@taking(EvaluationArguments)
def evaluate(
    arguments: EvaluationArguments,
    student: Annotated[
        str, typer.Argument(metavar="STUDENT", help="Folder or file of a student, or any TEACHER of compress.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Labelled images: a folder with one subfolder per class, or cifar10:ROOT, cifar100:ROOT, mnist:ROOT, "
            "fashion-mnist:ROOT in torchvision's format. For a segmentation network: a folder with images/ and masks/, "
            "or voc:ROOT, cityscapes:ROOT.",
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
    min_miou: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Smallest mean IoU of a segmentation network.", rich_help_panel=_GATES
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Largest difference of the teacher's and the student's accuracy or mean IoU.",
            rich_help_panel=_GATES,
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Smallest share of images or pixels with the teacher's prediction.",
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
    ignore_index: options.IgnoreIndex = None,
    class_names: options.ClassNames = None,
) -> object:
    """Measure accuracy on labelled images, or mean IoU on images with masks; with --teacher also its and the agreement.

    Without --data, check what needs no labels: the file, its report, size, latency, and the agreement with the teacher
    on the images in the calibration.safetensors beside STUDENT, or on those of --images. This is not accuracy.

    A file that dfkd wrote contains all facts about its network. The options for these facts are then for the other
    network. When dfkd wrote neither, they are for both; --teacher-arch and --teacher-prefix replace --arch and --prefix
    for TEACHER.
    """
    _check_gates(data, teacher, {"--min-accuracy": min_accuracy, "--min-miou": min_miou}, max_drop, min_agreement)
    facts = arguments.facts()

    from dfkd_cli.evaluation import interface

    evaluation = interface.evaluate(
        student,
        data,
        teacher=teacher,
        images=images,
        device=arguments.device,
        batch_size=batch_size,
        teacher_arch=teacher_arch,
        teacher_prefix=teacher_prefix,
        ignore_index=ignore_index or (),
        class_names=class_names,
        note=_note,
        **arguments.reading(),
        **arguments.label_values(),
        **facts,
    )
    missed = missed_gates(evaluation, min_accuracy, min_miou, max_drop, min_agreement)
    if not as_json:
        print_evaluation(evaluation)
    if missed:
        raise GateMissedError("; ".join(missed), evaluation)
    return evaluation if as_json else None


def _check_gates(
    data: str | None,
    teacher: str | None,
    smallest: dict[str, float | None],
    max_drop: float | None,
    min_agreement: float | None,
) -> None:
    """Raise UsageError for a gate on a figure that will not be measured."""
    for flag, bar in (*smallest.items(), ("--max-drop", max_drop)):
        if bar is not None and data is None:
            raise UsageError(f"{flag} needs --data, the labelled images that accuracy is measured on")
    if max_drop is not None and teacher is None:
        raise UsageError("--max-drop needs --teacher, whose accuracy it compares with")
    if min_agreement is not None and data is not None and teacher is None:
        raise UsageError("--min-agreement with --data needs --teacher, whose predictions it compares with")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
