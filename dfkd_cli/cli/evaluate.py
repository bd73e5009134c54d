"""`dfkd evaluate`: measure accuracy, or agreement with the teacher, as a gate in a pipeline too."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import ImageArguments, LabelArguments, NetworkArguments
from dfkd_cli.cli.evaluation_table import print_evaluation
from dfkd_cli.cli.gates import GateArguments
from dfkd_cli.cli.signature import taking
from dfkd_cli.errors import GateMissedError


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(GateArguments, LabelArguments, ImageArguments, NetworkArguments):
    """The arguments of `evaluate`, besides those that name what is compared."""

    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images per batch.")] = 256
    teacher_arch: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Architecture of TEACHER in place of --arch.", rich_help_panel=options.PANEL),
    ] = None
    teacher_prefix: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Network in TEACHER in place of --prefix.", rich_help_panel=options.PANEL),
    ] = None
    ignore_index: options.IgnoreIndex = None
    class_names: options.ClassNames = None

    def values(self) -> dict[str, Any]:
        """Return the keyword arguments of `dfkd_cli.evaluate`. Raises UsageError for a wrong flag."""
        return {
            "device": self.device,
            "batch_size": self.batch_size,
            "teacher_arch": self.teacher_arch,
            "teacher_prefix": self.teacher_prefix,
            "ignore_index": self.ignore_index or (),
            "class_names": self.class_names,
            **self.reading(),
            **self.label_values(),
            **self.facts(),
        }


@taking(EvaluateArguments)
def evaluate(
    arguments: EvaluateArguments,
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
) -> object:
    """Measure accuracy on labelled images, or mean IoU on images with masks; with --teacher also the teacher's.

    Without --data, check what needs no labels: the file, its report, size, latency, and the agreement with the teacher
    on the images in the calibration.safetensors beside STUDENT, or on those of --images. This is not accuracy.

    A file that dfkd wrote contains all facts about its network. The options for these facts are then for the other
    network. When dfkd wrote neither, they are for both; --teacher-arch and --teacher-prefix replace --arch and --prefix
    for TEACHER.
    """
    arguments.check_gates(data, teacher)
    values = arguments.values()

    from dfkd_cli.evaluation import interface

    evaluation = interface.evaluate(student, data, teacher=teacher, images=images, note=_note, **values)
    missed = arguments.missed(evaluation)
    if not as_json:
        print_evaluation(evaluation)
    if missed:
        raise GateMissedError("; ".join(missed), evaluation)
    return evaluation if as_json else None


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
