"""`report.html`: the report of a run and its evidence, rendered with the templates in `templates/`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from dfkd_cli.evaluation.confusion import Confusion
from dfkd_cli.networks.tasks import TASKS
from dfkd_cli.report.comparison import comparison, explanations
from dfkd_cli.report.page.curves import read_curves
from dfkd_cli.report.page.disagreement import disagreement
from dfkd_cli.report.page.gallery import data_uri, gallery
from dfkd_cli.report.page.training import training
from dfkd_cli.report.quantities import DASH, counted, duration, megabytes, share
from dfkd_cli.report.report import ON_EVALUATION_DATA, Report

STRIP_BESIDE = 3  # image, teacher, student
SCENE_BESIDE = 4  # image, mask, teacher, student
_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Evidence:
    """What the page shows besides the report's values."""

    metrics: Sequence[str]  # the lines of metrics.jsonl
    images: Tensor  # [N, C, H, W] in [0, 1]: a sample of the images that the student learned from
    classes: Tensor  # [N]: the teacher's predictions for them
    confusion: Confusion
    class_names: Sequence[str] | None  # None if only class numbers are known
    scenes: Tensor | None = None  # [N, 3, H, W]: evaluation images beside mask, teacher and student


class Figure(NamedTuple):
    """One of the large figures at the top of the page."""

    name: str
    value: str
    detail: str


class Time(NamedTuple):
    """One use of the run's time."""

    name: str
    kind: str  # CSS class of its colour
    seconds: float


def render(report: Report, evidence: Evidence) -> str:
    """Return the page as HTML that loads nothing: styles, plots and images are embedded."""
    environment = Environment(
        loader=PackageLoader("dfkd_cli.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"share": share, "duration": duration, "megabytes": megabytes, "counted": counted}
    on_evaluation_data = report.agreement_on == ON_EVALUATION_DATA
    return environment.get_template("report.html").render(
        report=report,
        teacher=report.teacher.arch or Path(report.teacher.source).name or report.teacher.kind,
        figures=_figures(report),
        comparison=comparison(report),
        explanations=explanations(report),
        training=training(read_curves(evidence.metrics)),
        gallery=gallery(evidence.images, evidence.classes, evidence.class_names, _beside(report)),
        scenes=[] if evidence.scenes is None else [data_uri(scene, SCENE_BESIDE) for scene in evidence.scenes],
        shown=len(evidence.images),
        disagreement=disagreement(evidence.confusion, evidence.class_names),
        answered=TASKS[report.task].answered,
        scored=report.segmentation.classes if report.segmentation is not None else (),
        measured_on="evaluation images" if on_evaluation_data else report.images.wording.measured_on,
        times=_times(report),
        versions=asdict(report.versions),
    )


def _beside(report: Report) -> int:
    """Return how many images each image of the gallery shows beside each other."""
    return STRIP_BESIDE if report.task == "segmentation" else 1


def _figures(report: Report) -> list[Figure]:
    teacher, student, measure = report.teacher, report.student, report.measure()
    title = f"{measure.name[:1].upper()}{measure.name[1:]} kept"
    if measure.student is None:
        kept = Figure(title, "not measured", "no labelled images were given")
    else:
        detail = f"{measure.name} {share(measure.student)}, teacher {share(measure.teacher)}"
        kept = Figure(title, share(measure.relative), detail)
    ratio = teacher.parameters / student.parameters if teacher.parameters and student.parameters else None
    if ratio is None:
        size = Figure("Size", DASH, counted(student.parameters, "parameter"))
    else:
        factor, change = (ratio, "smaller") if ratio >= 1 else (1 / ratio, "larger")
        detail = f"{change}: {counted(student.parameters, 'parameter')}, teacher {teacher.parameters:,}"
        size = Figure("Size", f"{factor:.1f}{_TIMES}", detail)
    source_share = report.time.synthesis_s / report.time.total_s if report.time.total_s else 0.0
    return [
        kept,
        size,
        Figure("Agreement", share(report.agreement), f"on {report.agreement_on}"),
        Figure("Time", duration(report.time.total_s), f"{100 * source_share:.0f} % for {report.images.wording.effort}"),
    ]


def _times(report: Report) -> list[Time]:
    time = report.time
    return [
        Time(report.images.wording.effort, "synthesis", time.synthesis_s),
        Time("training the student", "distillation", time.distillation_s),
        Time("loading, measuring, writing", "rest", max(0.0, time.total_s - time.synthesis_s - time.distillation_s)),
    ]
