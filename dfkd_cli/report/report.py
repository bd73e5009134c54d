"""What a run says about itself afterwards: `report.json` for tools, `report.md` for people."""

import json
import platform
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path

import timm
import torch

from dfkd_cli import __version__
from dfkd_cli.machine.files import write_text_atomically
from dfkd_cli.report.environment import Environment
from dfkd_cli.report.images import ImagesReport
from dfkd_cli.report.markdown import fenced, plain
from dfkd_cli.report.quantities import DASH, megabytes, share

ON_EVALUATION_DATA = "evaluation data"  # of `Report.agreement_on`; without such data as in `Wording.measured_on`


@dataclass(frozen=True)
class TeacherReport:
    """The network that was compressed."""

    source: str  # what the user typed
    kind: str  # in what form it came, as in `Origin.kind`
    arch: str | None
    accuracy: float | None  # 0..1, None without evaluation data
    parameters: int
    batchnorm_layers: int
    sha256: str | None  # None when the weights did not come from one file
    file_bytes: int | None
    flags: tuple[str, ...] = ()  # what the user said of it on the command line, such as --arch


@dataclass(frozen=True)
class StudentReport:
    """The network that came out."""

    arch: str
    accuracy: float | None  # 0..1, at the end of the run; None without evaluation data
    parameters: int
    sha256: str  # of student.safetensors
    file_bytes: int


@dataclass(frozen=True)
class TimeReport:
    """Seconds of wall clock: the whole run, and what of it made images and what trained the student."""

    total_s: float
    synthesis_s: float
    distillation_s: float


@dataclass(frozen=True)
class MemoryReport:
    """The most memory the run held at once: of the process on a CPU, of torch's allocator on a GPU."""

    peak_bytes: int


@dataclass(frozen=True)
class RecipeReport:
    """Which recipe ran; the hash is of `recipe.yaml`, with every value that was in force."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Versions:
    """What the run was computed with."""

    dfkd: str = __version__
    torch: str = str(torch.__version__)
    timm: str = timm.__version__
    python: str = platform.python_version()


@dataclass(frozen=True)
class Report:
    """One run; its fields are those of `report.json`. Accuracies and agreement are shares in 0..1."""

    relative_accuracy: float | None  # student / teacher; None without evaluation data
    agreement: float | None  # share of images for which both name the same class
    agreement_on: str | None  # which images those were
    teacher: TeacherReport
    student: StudentReport
    images: ImagesReport
    time: TimeReport
    memory: MemoryReport
    recipe: RecipeReport
    steps: int  # updates of the student
    seed: int
    device: str
    precision: str
    optimizer: str  # of the student, whatever `train.optimizer` left open
    command: str  # as typed, so that it can be typed again
    notes: tuple[str, ...] = ()  # what the reader should know, one sentence each: warnings, what was left out
    versions: Versions = field(default_factory=Versions)
    environment: Environment = field(default_factory=Environment)

    def to_json(self) -> str:
        """The content of `report.json`. Raises ValueError for a value that is not finite."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The content of `report.md`: for a reader who has not seen the documentation."""
        parts = [_headline(self), comparison_table(self), _meaning(self), _pictures(self), _run(self), _use(self)]
        return "\n\n".join(parts) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Write `report.json` and `report.md` into `folder`."""
    write_text_atomically(folder / "report.json", report.to_json())
    write_text_atomically(folder / "report.md", report.to_markdown())


def _headline(report: Report) -> str:
    title = f"# {report.student.arch}, distilled from {plain(report.teacher.source)} without its data"
    if report.relative_accuracy is not None:
        return f"{title}\n\nThe student reaches **{report.relative_accuracy:.1%} of the teacher's accuracy**."
    if report.student.accuracy is not None:
        return (
            f"{title}\n\nThe teacher was **right on none** of the labelled pictures: the labels of `--eval`, or the "
            "order of their classes, are probably not the teacher's."
        )
    return f"{title}\n\nThe student's accuracy was **not measured**: there were no labelled pictures (`--eval DIR`)."


def comparison(report: Report) -> list[tuple[str, str, str, str]]:
    """Rows of what sets the two networks apart: quantity, teacher, student, student / teacher."""
    teacher, student = report.teacher, report.student
    return [
        ("network", teacher.arch or teacher.kind, student.arch, ""),
        ("accuracy", share(teacher.accuracy), share(student.accuracy), share(report.relative_accuracy)),
        (
            "parameters",
            f"{teacher.parameters:,}",
            f"{student.parameters:,}",
            share(student.parameters / teacher.parameters) if teacher.parameters else DASH,
        ),
        (
            "file size",
            megabytes(teacher.file_bytes),
            megabytes(student.file_bytes),
            share(student.file_bytes / teacher.file_bytes) if teacher.file_bytes else DASH,
        ),
    ]


def meanings(report: Report) -> list[tuple[str, str]]:
    """What the numbers mean: a term, or nothing, and the sentence that goes on from it."""
    found: list[tuple[str, str]] = []
    if report.student.accuracy is not None:
        text = (
            " is the share of evaluation pictures that are put into the right class. It is measured once, at the end; "
            "the pictures were used for nothing else, and did not choose the weights."
        )
        found.append(("Accuracy", text))
    if report.agreement is not None:
        text = f": so often student and teacher name the same class, right or wrong. Measured on {report.agreement_on}."
        found.append((f"Agreement {share(report.agreement)}", text))
    return found if report.images.pool is not None else [*found, ("", _trace(report.teacher.batchnorm_layers))]


def _trace(batchnorm_layers: int) -> str:
    if batchnorm_layers == 0:
        return "The teacher has no BatchNorm layers, so nothing in it tells what its real pictures looked like."
    return (
        f"The teacher has {batchnorm_layers} BatchNorm layers. Their running statistics are the only trace of the real "
        "pictures that the synthetic ones can be held against."
    )


def comparison_table(report: Report) -> str:
    """`comparison` in Markdown."""
    lines = ["| | teacher | student | student / teacher |", "|---|--:|--:|--:|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in comparison(report)])


def _meaning(report: Report) -> str:
    lines = [f"- **{term}**{text}" if term else f"- {text}" for term, text in meanings(report)]
    return "\n".join(["## What the numbers mean", "", *lines, *(f"- {plain(note)}" for note in report.notes)])


def _pictures(report: Report) -> str:
    images = report.images
    return (
        f"## What the student learned from\n\n{images.counted()} Some of them, with the class the teacher sees in "
        f"each. {images.wording.warning}\n\n![{images.wording.name}](samples.png)"
    )


def _run(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in asdict(report.versions).items())
    rows = [
        ("recipe", f"{report.recipe.name} (all values in `recipe.yaml`, sha256 `{report.recipe.sha256[:12]}`)"),
        *([("pool", f"`{report.images.pool}`")] if report.images.pool else []),
        ("steps", f"{report.steps:,}"),
        ("optimizer", report.optimizer),
        (
            "time",
            f"{report.time.total_s:,.0f} s: {report.images.wording.effort} {report.time.synthesis_s:,.0f} s, "
            f"training the student {report.time.distillation_s:,.0f} s",
        ),
        ("peak memory", megabytes(report.memory.peak_bytes)),
        ("device", f"{report.device}, {report.precision}"),
        ("seed", str(report.seed)),
        ("versions", versions),
        ("teacher sha256", f"`{report.teacher.sha256}`" if report.teacher.sha256 else "not from one file"),
        ("student sha256", f"`{report.student.sha256}`"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## The run\n\n| | |\n|---|---|\n{table}\n\nTo repeat it:\n\n{fenced(report.command)}"


def _use(report: Report) -> str:
    evaluate = "dfkd evaluate THIS_FOLDER --data PICTURES --teacher "
    evaluate += shlex.join([report.teacher.source, *report.teacher.flags])
    return (
        "## Use the student\n\n```python\nimport timm\nimport dfkd_cli.models  # for the architectures that timm "
        'itself does not have\n\nmodel = timm.create_model("local-dir:THIS_FOLDER", pretrained=True).eval()\n```\n\n'
        "Its `pretrained_cfg` holds input size, mean and std. On labelled pictures, one folder per class:\n\n"
        + fenced(evaluate)
    )
