"""What a compression was asked to do, and what it consists of once everything is loaded."""

from dataclasses import dataclass
from pathlib import Path

from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.loading import LoadOptions
from dfkd_cli.machine.runtime import Precision, Runtime
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.recipe.recipe import Recipe
from dfkd_cli.training.checkpoint import Interval

DEFAULT_INTERVAL = Interval(seconds=300.0)


@dataclass(frozen=True)
class Job:
    """What the user asked for."""

    teacher: str
    load: LoadOptions
    student: str
    recipe: str
    overrides: tuple[str, ...]
    out: Path
    overwrite: bool
    seed: int
    device: str
    precision: Precision
    eval_data: str | None
    pool: Path | None  # folder of unlabelled pictures, for recipes that learn from one
    command: str
    resume: bool = False  # go on with the unfinished run in `out`
    checkpoint_every: Interval = DEFAULT_INTERVAL


@dataclass(frozen=True)
class Parts:
    """What a job consists of once everything is loaded and checked."""

    recipe: Recipe
    teacher: Classifier
    student: Classifier
    data: LabelledImages | None
    runtime: Runtime
    pool: Path | None

    def notes(self) -> tuple[str, ...]:
        """What the user should know of the two networks, one sentence each."""
        return (*self.teacher.origin.notes, *self.student.origin.notes)
