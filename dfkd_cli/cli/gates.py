"""Quality gates: bars that an evaluation has to reach, and the exit code of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.evaluation.evaluation import Evaluation

_PANEL = "Quality gates (exit code 5 when missed)"
_TOLERANCE = 1e-9  # in floating point, 0.93 - 0.91 is slightly more than 0.02


@dataclass(frozen=True, kw_only=True)
class GateArguments:
    """The gates of `dfkd evaluate`, all fractions; None: no gate."""

    min_accuracy: Annotated[
        float | None, typer.Option(metavar="SHARE", min=0, max=1, help="Smallest accuracy.", rich_help_panel=_PANEL)
    ] = None
    min_miou: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Smallest mean IoU of a segmentation network.", rich_help_panel=_PANEL
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Largest difference of the teacher's and the student's accuracy or mean IoU.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    min_agreement: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Smallest share of images or pixels with the teacher's prediction.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    def check_gates(self, data: str | None, teacher: str | None) -> None:
        """Raise UsageError for a gate on a figure that will not be measured."""
        on_labels = {"--min-accuracy": self.min_accuracy, "--min-miou": self.min_miou, "--max-drop": self.max_drop}
        for flag, bar in on_labels.items():
            if bar is not None and data is None:
                raise UsageError(f"{flag} needs --data, the labelled images that accuracy is measured on")
        if self.max_drop is not None and teacher is None:
            raise UsageError("--max-drop needs --teacher, whose accuracy it compares with")
        if self.min_agreement is not None and data is not None and teacher is None:
            raise UsageError("--min-agreement with --data needs --teacher, whose predictions it compares with")

    def missed(self, result: Evaluation) -> list[str]:
        """Return one sentence per gate that the evaluation misses.

        Raises UsageError for a gate on the main figure of another task.
        """
        dense = result.scores is not None
        name, value, of_teacher = "accuracy", result.accuracy, result.teacher_accuracy
        if result.scores is not None:
            name, value = "mean IoU", result.scores.miou
            of_teacher = result.teacher_scores and result.teacher_scores.miou
        flag, smallest = ("--min-miou", self.min_miou) if dense else ("--min-accuracy", self.min_accuracy)
        if (self.min_accuracy if dense else self.min_miou) is not None:
            wrong = "--min-accuracy" if dense else "--min-miou"
            raise UsageError(f"{wrong} does not apply to a network for {result.task}; use {flag}")
        missed = []
        if _is_below(value, smallest):
            missed.append(f"{name} {value:.4f} is below {flag} {smallest:g}")
        if _is_below(result.agreement, self.min_agreement):
            missed.append(f"agreement {result.agreement:.4f} is below --min-agreement {self.min_agreement:g}")
        if value is not None and of_teacher is not None and _is_below(self.max_drop, drop := of_teacher - value):
            missed.append(
                f"{name} {value:.4f} is {drop:.4f} below the teacher's {of_teacher:.4f}, "
                f"more than --max-drop {self.max_drop:g}"
            )
        return missed


def _is_below(value: float | None, bar: float | None) -> bool:
    return value is not None and bar is not None and value < bar - _TOLERANCE
