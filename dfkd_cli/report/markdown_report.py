"""`report.md`: the report of a run for people, in Markdown."""

import shlex
from dataclasses import asdict

from dfkd_cli.report.comparison import comparison_table, explanations
from dfkd_cli.report.markdown import fenced, plain
from dfkd_cli.report.quantities import duration, megabytes
from dfkd_cli.report.report import CalibrationReport, Report


def markdown_report(report: Report) -> str:
    """Return the content of `report.md`, written for readers who have not read the documentation."""
    sections = [
        _headline(report),
        comparison_table(report),
        _meaning(report),
        _images(report),
        _run(report),
        _use(report),
    ]
    return "\n\n".join(sections) + "\n"


def _headline(report: Report) -> str:
    title = f"# {report.student.arch}, distilled from {plain(report.teacher.source)} without its training data"
    measure = report.measure()
    if measure.relative is not None:
        return f"{title}\n\nThe student reaches **{measure.relative:.1%} of the teacher's {measure.name}**."
    if measure.student is not None:
        return (
            f"{title}\n\nThe teacher classified **no evaluation image correctly**: the labels of `--eval`, or the "
            "order of its classes, are probably not those of the teacher."
        )
    return (
        f"{title}\n\nThe student's {measure.name} was **not measured**, because no labelled images were given "
        "(`--eval DIR`)."
    )


def _meaning(report: Report) -> str:
    lines = [f"- **{term}**{text}" if term else f"- {text}" for term, text in explanations(report)]
    return "\n".join(["## What the numbers mean", "", *lines, *(f"- {plain(note)}" for note in report.notes)])


def _images(report: Report) -> str:
    images = report.images
    return (
        f"## What the student learned from\n\n{images.summary()} Some of them are shown below, each with the class "
        f"that the teacher predicts. {images.wording.warning}\n\n![{images.wording.name}](samples.png)"
    )


def _run(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in asdict(report.versions).items())
    recipe = f"{plain(report.recipe.title())} (all values in `recipe.yaml`, sha256 `{report.recipe.sha256[:12]}`)"
    rows = [
        ("recipe", recipe),
        *([("pool", f"`{report.images.pool}`")] if report.images.pool else []),
        *([("calibration file", _calibration(report.calibration))] if report.calibration else []),
        ("steps", f"{report.steps:,}"),
        ("optimizer", report.optimizer),
        (
            "time",
            f"{duration(report.time.total_s)}: {report.images.wording.effort} {duration(report.time.synthesis_s)}, "
            f"training the student {duration(report.time.distillation_s)}",
        ),
        ("peak memory", megabytes(report.memory.peak_bytes)),
        ("device", f"{report.device}, {report.precision}"),
        ("seed", str(report.seed)),
        ("preprocessing of image files", str(report.preprocessing)),
        ("versions", versions),
        ("teacher sha256", f"`{report.teacher.sha256}`" if report.teacher.sha256 else "none: not a single file"),
        ("student sha256", f"`{report.student.sha256}`"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## The run\n\n| | |\n|---|---|\n{table}\n\nThe command that repeats it:\n\n{fenced(report.command)}"


def _calibration(file: CalibrationReport) -> str:
    kind = "fresh synthetic images" if file.kind == "synthetic" else "images of the pool"
    return f"{file.images:,} {kind} with the teacher's logits, {megabytes(file.file_bytes)}"


def _use(report: Report) -> str:
    folders = "one folder per class" if report.task == "classification" else "the folders `images` and `masks`"
    evaluate = "dfkd evaluate THIS_FOLDER --data IMAGES --teacher "
    evaluate += shlex.join([report.teacher.source, *report.teacher.flags])
    if not report.student.loads_with_timm():
        return (
            "## Use the student\n\n```python\nfrom dfkd_cli import load\n\n"
            'model = load("THIS_FOLDER")  # an nn.Module: images in [0, 1] in, logits out\n```\n\n'
            f"To evaluate the student on labelled images, {folders}:\n\n{fenced(evaluate)}"
        )
    return (
        "## Use the student\n\n```python\nimport timm\nimport dfkd_cli.models  # registers the architectures that timm "
        'does not have\n\nmodel = timm.create_model("local-dir:THIS_FOLDER", pretrained=True).eval()\n```\n\n'
        "`model.pretrained_cfg` holds input size, mean and std. To evaluate the student on labelled images, "
        f"{folders}:\n\n{fenced(evaluate)}"
    )
