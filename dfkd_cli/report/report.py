"""The report of a run: everything that its documents show, and `report.json` itself."""

import json
import platform
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import timm
import torch

from dfkd_cli.config.version import __version__
from dfkd_cli.evaluation.segmentation import Segmentation
from dfkd_cli.networks.classifier import Preprocessing
from dfkd_cli.networks.tasks import TASKS, TaskName
from dfkd_cli.report.environment import Environment
from dfkd_cli.report.images import ImagesReport

ON_EVALUATION_DATA = (
    "evaluation data"  # a value of `Report.agreement_on`; the others are those of `Wording.measured_on`
)


@dataclass(frozen=True)
class TeacherReport:
    """The network that was compressed."""

    source: str  # as given on the command line
    kind: str  # the form of its file, as in `Origin.kind`
    arch: str | None
    accuracy: float | None  # in [0, 1]; None without evaluation data
    parameters: int
    batchnorm_layers: int
    sha256: str | None  # None if the weights are not in one file
    file_bytes: int | None
    flags: tuple[str, ...] = ()  # the flags that describe it, such as --arch
    assumed: tuple[str, ...] = ()  # what no flag and no file states of its input: input_size, mean, std


@dataclass(frozen=True)
class StudentReport:
    """The network that the run wrote."""

    arch: str  # of a narrowed student: the name of its teacher, and the share of it
    narrowed: bool  # whether it was made from the teacher
    accuracy: float | None  # in [0, 1], at the end of the run; None without evaluation data
    parameters: int
    sha256: str  # of student.safetensors
    file_bytes: int

    def loads_with_timm(self) -> bool:
        """Return whether timm can load the folder: a whole network of an architecture that timm or dfkd has."""
        return not self.narrowed and not self.arch.startswith(("torchvision/", "smp/"))


@dataclass(frozen=True)
class CalibrationReport:
    """`calibration.safetensors`: images that the student was not trained on, with the teacher's logits."""

    images: int
    kind: str  # "synthetic", or "pool" for images of the user's pool
    agreement: float  # of student and teacher on them, in [0, 1]
    file_bytes: int


@dataclass(frozen=True)
class TimeReport:
    """Seconds of wall clock: of the run, of the image source, and of the student's steps."""

    total_s: float
    synthesis_s: float
    distillation_s: float


@dataclass(frozen=True)
class MemoryReport:
    """Peak memory of the run: of the process on a CPU, of torch's allocator on a GPU."""

    peak_bytes: int


@dataclass(frozen=True)
class RecipeReport:
    """The recipe of the run. The hash is that of `recipe.yaml`, which holds every value that was used."""

    name: str  # of a recipe of the package, or of the user's file without its suffix
    method: str
    sha256: str

    def title(self) -> str:
        """Return the name, with the method if that has another name."""
        return self.name if self.name == self.method else f"{self.name} (method {self.method})"


@dataclass(frozen=True)
class Versions:
    """Versions of the software of the run."""

    dfkd: str = __version__
    torch: str = str(torch.__version__)
    timm: str = timm.__version__
    python: str = platform.python_version()


class Measure(NamedTuple):
    """The main figure of a task on evaluation data: accuracy or mean IoU. All values None without such data."""

    name: str
    student: float | None
    teacher: float | None
    relative: float | None


@dataclass(frozen=True)
class Report:
    """One run, with the fields of `report.json`. Accuracies and agreement are fractions in [0, 1]."""

    relative_accuracy: float | None  # student / teacher; None without evaluation data, or if the teacher's is 0
    agreement: float | None  # fraction of images or pixels for which both networks predict the same class
    agreement_on: str | None  # the images that agreement was measured on
    teacher: TeacherReport
    student: StudentReport
    images: ImagesReport
    time: TimeReport
    memory: MemoryReport
    recipe: RecipeReport
    steps: int  # of the student
    seed: int
    device: str
    precision: str
    optimizer: str  # of the student; with `train.optimizer: auto` the one that was chosen
    command: str  # repeats the run
    preprocessing: Preprocessing = field(default_factory=Preprocessing)  # of image files, for teacher and student
    notes: tuple[str, ...] = ()  # one sentence each: warnings, and what was left out
    calibration: CalibrationReport | None = None  # None without the file
    versions: Versions = field(default_factory=Versions)
    environment: Environment = field(default_factory=Environment)
    task: TaskName = "classification"
    segmentation: Segmentation | None = None  # on evaluation data; None without them, and for a classifier

    def measure(self) -> Measure:
        """Return the main figure on evaluation data."""
        name, found = TASKS[self.task].measure, self.segmentation
        if found is None:
            return Measure(name, self.student.accuracy, self.teacher.accuracy, self.relative_accuracy)
        return Measure(name, found.student.miou, found.teacher and found.teacher.miou, found.relative_miou)

    def to_json(self) -> str:
        """Return the content of `report.json`. Raises ValueError for a value that is not finite."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"
