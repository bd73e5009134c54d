"""A job as the user gives it, and the same job with everything loaded."""

import copy
from dataclasses import dataclass
from pathlib import Path

from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.data.label_options import NO_LABEL_OPTIONS, LabelOptions
from dfkd_cli.data.reading import ReadOptions
from dfkd_cli.data.segmented import MaskOptions, SegmentedImages
from dfkd_cli.loading import LoadOptions
from dfkd_cli.machine.runtime import Precision, Runtime
from dfkd_cli.narrowing.plan import NarrowingPlan, shrink
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.recipe.recipe import Recipe
from dfkd_cli.training.checkpoint import Interval

DEFAULT_INTERVAL = Interval(seconds=300.0)


@dataclass(frozen=True)
class Job:
    """What the user asked for, before anything is read."""

    teacher: str
    load: LoadOptions  # of the teacher
    student: str  # name of an architecture, or the share of the teacher that the student keeps
    recipe: str  # name or YAML file
    overrides: tuple[str, ...]  # KEY=VALUE, in this order
    out: Path
    overwrite: bool
    seed: int
    device: str
    precision: Precision
    eval_data: str | None
    masks: MaskOptions  # of the evaluation data of a segmentation network
    pool: Path | None  # folder of unlabelled images, for recipes that learn from one
    read_options: ReadOptions  # of the image files of both
    command: str  # the shell command that repeats the job
    resume: bool = False  # continue the unfinished run in `out`
    checkpoint_every: Interval = DEFAULT_INTERVAL
    calibration: bool = True  # leave calibration images beside the student
    labels: LabelOptions = NO_LABEL_OPTIONS  # how `eval_data` is read


@dataclass(frozen=True)
class LoadedJob:
    """A job whose recipe, networks and data are loaded, checked and on their device."""

    recipe: Recipe
    teacher: Classifier
    student: Classifier
    data: LabelledImages | SegmentedImages | None  # for the evaluation
    runtime: Runtime
    pool: Path | None
    read_options: ReadOptions  # of the image files in the pool
    plan: NarrowingPlan | None = None  # of a student that begins as the teacher

    def final_student(self) -> Classifier:
        """Return the student, or a copy in the shape that it has at the end of the training."""
        if self.plan is None:
            return self.student
        student = copy.deepcopy(self.student)
        shrink(student.network.get_submodule("module"), self.plan.gone)
        return student

    def notes(self) -> tuple[str, ...]:
        """Return sentences for the user about the two networks and the evaluation data."""
        data = self.data
        read = data.contents.notes(data.where) if isinstance(data, LabelledImages) else ()
        return (*self.teacher.origin.notes, *self.student.origin.notes, *read)
