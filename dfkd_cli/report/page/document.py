"""The whole page: `report.html` from a report and what was seen along the way."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from torch import Tensor

from dfkd_cli.evaluation.confusion import Confusion
from dfkd_cli.report.page.curves import read_curves
from dfkd_cli.report.page.disagreement import disagreement
from dfkd_cli.report.page.gallery import gallery
from dfkd_cli.report.page.markup import Figure, Markup, code, escape, key_figures, paragraph, section, table
from dfkd_cli.report.page.training import training
from dfkd_cli.report.quantities import DASH, duration, megabytes, share
from dfkd_cli.report.report import ON_EVALUATION_DATA, Report, comparison, meanings

_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Evidence:
    """What the page shows besides the report's numbers."""

    metrics: Sequence[str]  # the lines of metrics.jsonl
    images: Tensor  # [N, C, H, W] in [0, 1]: some that the student learned from
    classes: Tensor  # [N]: what the teacher sees in them
    confusion: Confusion
    class_names: Sequence[str] | None  # None where only numbers are known


def render(report: Report, evidence: Evidence) -> str:
    """The page as HTML that loads nothing: styles, curves and pictures are inside."""
    teacher = report.teacher.arch or Path(report.teacher.source).name or report.teacher.kind
    on_data = report.agreement_on == ON_EVALUATION_DATA
    measured_on = "evaluation pictures" if on_data else report.images.wording.measured_on
    body = [
        key_figures(_key_figures(report)),
        section("Worth knowing", _notes(report)),
        section("Teacher and student", _comparison(report), _meanings(report)),
        section("Training", *training(read_curves(evidence.metrics))),
        section("What the student learned from", *_images(report, evidence)),
        section("Where they differ", *disagreement(evidence.confusion, measured_on, evidence.class_names)),
        section("Time and memory", *_cost(report)),
        section("The run", *_run(report)),
    ]
    template = Template(files("dfkd_cli.report.page").joinpath("template.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(f"{report.student.arch}, distilled from {teacher}"),
        student=escape(report.student.arch),
        teacher=escape(teacher),
        summary=escape(f"Recipe {report.recipe.name}, {report.steps:,} steps, seed {report.seed}, {report.device}"),
        body="\n".join(body),
        version=escape(report.versions.dfkd),
    )


def _key_figures(report: Report) -> list[Figure]:
    teacher, student = report.teacher, report.student
    if student.accuracy is None:
        kept = Figure("Accuracy kept", "not measured", "no labelled pictures were given")
    else:
        told = f"{share(student.accuracy)} of pictures right; teacher {share(teacher.accuracy)}"
        kept = Figure("Accuracy kept", share(report.relative_accuracy), told)
    ratio = teacher.parameters / student.parameters if teacher.parameters and student.parameters else None
    smaller = ratio is None or ratio >= 1
    size = DASH if ratio is None else f"{ratio if smaller else 1 / ratio:.1f}{_TIMES}"
    told = f"{'smaller' if smaller else 'larger'}: {student.parameters:,} parameters, teacher {teacher.parameters:,}"
    making = report.time.synthesis_s / report.time.total_s if report.time.total_s else 0.0
    return [
        kept,
        Figure("Size", size, told if ratio else f"{student.parameters:,} parameters"),
        Figure("Agreement", share(report.agreement), f"on {report.agreement_on}"),
        Figure("Time", duration(report.time.total_s), f"{100 * making:.0f} % of it {report.images.wording.effort}"),
    ]


def _notes(report: Report) -> Markup:
    items = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return Markup(f'<ul class="notes">{items}</ul>') if items else Markup()


def _comparison(report: Report) -> Markup:
    return table(comparison(report), ("", "teacher", "student", "ratio"), "digits")


def _meanings(report: Report) -> Markup:
    items = "".join(
        f"<li>{Markup(f'<b>{escape(term)}</b>') if term else ''}{escape(text)}</li>" for term, text in meanings(report)
    )
    return Markup(f'<ul class="quiet">{items}</ul>')


def _images(report: Report, evidence: Evidence) -> list[Markup]:
    images = report.images
    text = (
        f"{images.counted()} Here are {len(evidence.images)} of them, by the class the teacher sees in each. "
        f"{images.wording.warning}"
    )
    return [paragraph(text), gallery(evidence.images, evidence.classes, evidence.class_names)]


def _cost(report: Report) -> list[Markup]:
    time = report.time
    rest = max(0.0, time.total_s - time.synthesis_s - time.distillation_s)
    parts = [
        (report.images.wording.effort, "synthesis", time.synthesis_s),
        ("training the student", "distillation", time.distillation_s),
        ("loading, measuring, writing", "rest", rest),
    ]
    whole = sum(seconds for *_, seconds in parts) or 1.0
    bar = "".join(f'<i class="{kind}" style="width:{100 * seconds / whole:.2f}%"></i>' for _, kind, seconds in parts)
    rows = [
        (Markup(f'<i class="key {kind}"></i>{name}'), duration(seconds), share(seconds / whole))
        for name, kind, seconds in parts
    ]
    rows += [("in all", duration(time.total_s), ""), ("peak memory", megabytes(report.memory.peak_bytes), "")]
    return [Markup(f'<div class="bar" aria-hidden="true">{bar}</div>'), table(rows, kind="digits narrow")]


def _run(report: Report) -> list[Markup]:
    machine, versions = report.environment, asdict(report.versions)
    teacher_sha = code(report.teacher.sha256) if report.teacher.sha256 else "not from one file"
    rows = [
        ("teacher", Markup(f"{code(report.teacher.source)} ({escape(report.teacher.kind)})")),
        ("teacher sha256", teacher_sha),
        ("student sha256", code(report.student.sha256)),
        ("recipe", f"{report.recipe.name}, every value in recipe.yaml"),
        ("recipe sha256", code(report.recipe.sha256)),
        *([("pool", code(report.images.pool))] if report.images.pool else []),
        ("steps", f"{report.steps:,}"),
        ("optimizer", report.optimizer),
        ("seed", str(report.seed)),
        ("device", f"{report.device}, {report.precision}"),
        (
            "processor",
            f"{machine.cpu}, {machine.threads} threads" if machine.threads > 1 else f"{machine.cpu}, 1 thread",
        ),
        *([("GPU", machine.gpu)] if machine.gpu else []),
        ("system", machine.system),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    # Word by word, since browsers would break an option after its hyphens.
    command = " ".join(f'<span class="word">{escape(word)}</span>' for word in report.command.split(" "))
    return [table(rows, kind="facts"), Markup(f"<h3>To repeat it</h3><pre>{command}</pre>")]
