"""`README.md` of the output folder: a Hugging Face model card, so that the folder can be published as it is."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.data.segmented import SegmentedImages
from dfkd_cli.models import REFERENCE_ARCHS
from dfkd_cli.networks.tasks import TASKS, TaskName
from dfkd_cli.report.comparison import comparison_table
from dfkd_cli.report.markdown import fenced, one_line, plain
from dfkd_cli.report.quantities import counted, duration, share
from dfkd_cli.report.report import Report

_TAGS = ["knowledge-distillation", "data-free", "dfkd"]

# name and description of the main figure, as the hub expects them
_METRICS: dict[TaskName, tuple[str, str]] = {
    "classification": ("accuracy", "top-1 accuracy"),
    "segmentation": ("mean_iou", "mean IoU"),
}


def model_card(report: Report, data: LabelledImages | SegmentedImages | None) -> str:
    """Return the card as Markdown with YAML metadata; `data` are the images that the accuracy was measured on.

    huggingface_hub writes the metadata and reads it back, which raises ValueError if it is not valid. Nothing is sent
    to the hub.
    """
    card = ModelCard.from_template(
        _metadata(report, data),
        template_str=files("dfkd_cli.report").joinpath("model_card.md").read_text(encoding="utf-8"),
        report=report,
        title=plain(report.student.arch),
        introduction=_introduction(report, data),
        recipe=plain(report.recipe.title()),
        comparison=comparison_table(report),
        use=_use(report),
        steps=counted(report.steps, "step"),
        time=duration(report.time.total_s),
        machine=plain(report.environment.gpu or report.environment.cpu),
        agreement=share(report.agreement),
        notes=[plain(note) for note in report.notes],
        command=fenced(report.command),
    )
    return f"{card.content}\n"


def _metadata(report: Report, data: LabelledImages | SegmentedImages | None) -> ModelCardData:
    """Return what the hub reads. A licence is left out, because the publisher chooses it."""
    measured: dict[str, Any] = {}
    task, measure = TASKS[report.task], report.measure()
    if data is not None and measure.student is not None:
        name, kind = _dataset(data.where)
        metric, metric_name = _METRICS[report.task]
        result = EvalResult(
            task_type=task.hub_name,
            dataset_name=name,
            dataset_type=kind,
            metric_type=metric,
            metric_name=metric_name,
            metric_value=measure.student,
        )
        measured = {"metrics": [metric], "model_name": report.student.arch, "eval_results": [result]}
    library = "timm" if report.student.loads_with_timm() else None
    return ModelCardData(
        library_name=library,
        pipeline_tag=task.hub_name,
        tags=[task.hub_name, *filter(None, [library]), *_TAGS],
        base_model=hub_name(report.teacher.source),
        **measured,
    )


def _dataset(where: str) -> tuple[str, str]:
    """Return name and type of the evaluation images, as the hub expects them."""
    packed, colon, _ = where.partition(":")
    if colon and not Path(where).exists():
        return one_line(packed), one_line(packed)
    # The last two names of the path identify the folder. The others may be private.
    return one_line("/".join(Path(where).resolve().parts[-2:])), "imagefolder"


def hub_name(teacher: str) -> str | None:
    """Return the teacher's name on the hub, "owner/name", or None if it does not come from the hub."""
    kind, _, name = teacher.partition(":")
    if kind == "hf-hub":
        return name.partition("@")[0]
    known = timm.get_pretrained_cfg(name) if kind == "timm" and timm.is_model(name.partition(".")[0]) else None
    return known.hf_hub_id if known is not None else None


def _introduction(report: Report, data: LabelledImages | SegmentedImages | None) -> str:
    task, measure = TASKS[report.task], report.measure()
    teacher = report.teacher.arch or Path(report.teacher.source).name
    kind = f"{task.network[:1].upper()}{task.network[1:]}"
    text = (
        f"{kind} distilled from {plain(teacher)} with dfkd, without the teacher's training data. The student learned "
        f"from {report.images.wording.origin}."
    )
    if measure.student is None or data is None:
        return f"{text} Its {measure.name} on real images **was not measured**."
    article = "an" if measure.name[0] in "aeiou" else "a"
    reached = (
        f"{article} {measure.name} of **{share(measure.student)}** (the teacher's is 0)"
        if measure.relative is None
        else f"**{share(measure.relative)} of the teacher's {measure.name}**"
    )
    return f"{text} It reaches {reached} on {counted(len(data), 'image')} that were not used for training."


def _use(report: Report) -> str:
    if not report.student.loads_with_timm():
        lines = ["from dfkd_cli import load", "", 'model = load("THIS_FOLDER")  # images in [0, 1] in, logits out']
        return "\n".join(lines)
    own = report.student.arch in REFERENCE_ARCHS
    lines = ["import timm", *(["import dfkd_cli.models  # registers this architecture with timm"] if own else []), ""]
    lines += [
        'model = timm.create_model("local-dir:THIS_FOLDER", pretrained=True).eval()',
        'model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True).eval()  # once published',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
    ]
    return "\n".join(lines)
