"""`README.md` of the output folder: a Hugging Face model card, so that the folder can be published as it is."""

from pathlib import Path

import timm
import yaml

from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.models import REFERENCE_ARCHS
from dfkd_cli.report.markdown import fenced, one_line, plain
from dfkd_cli.report.quantities import duration, share
from dfkd_cli.report.report import Report, comparison_table

_TAGS = ["image-classification", "timm", "knowledge-distillation", "data-free", "dfkd"]
_LICENSE = "# license: yours to choose; the teacher's terms may bind the student too\n"
_BIASES = "It repeats the teacher's mistakes and biases, and adds some of its own."


def model_card(report: Report, data: LabelledImages | None) -> str:
    """The card as Markdown with YAML front matter; `data` are the pictures that the report's accuracy is of."""
    front = yaml.safe_dump(_front_matter(report, data), sort_keys=False, allow_unicode=True)
    title = f"# {plain(report.student.arch)}"
    parts = [
        title,
        _introduction(report, data),
        comparison_table(report),
        _use(report),
        _making(report),
        _limits(report),
    ]
    return f"---\n{_LICENSE}{front}---\n\n" + "\n\n".join(parts)


def _front_matter(report: Report, data: LabelledImages | None) -> dict[str, object]:
    """What the hub reads. The licence is left to whoever publishes."""
    facts: dict[str, object] = {"library_name": "timm", "pipeline_tag": "image-classification", "tags": _TAGS}
    if base := hub_name(report.teacher.source):
        facts["base_model"] = base
    if data is None or report.student.accuracy is None:
        return facts
    result = {
        "task": {"type": "image-classification"},
        "dataset": _data_set(data.where),
        "metrics": [{"type": "accuracy", "name": "top-1 accuracy", "value": report.student.accuracy}],
    }
    return facts | {"metrics": ["accuracy"], "model-index": [{"name": report.student.arch, "results": [result]}]}


def _data_set(where: str) -> dict[str, str]:
    """Name and type of evaluation pictures, as the hub wants them."""
    packed, colon, _ = where.partition(":")
    if colon and not Path(where).exists():
        return {"name": one_line(packed), "type": one_line(packed)}
    # Two names of a path are enough to know it by; the rest of it is nobody's business.
    return {"name": one_line("/".join(Path(where).resolve().parts[-2:])), "type": "imagefolder"}


def hub_name(teacher: str) -> str | None:
    """The hub's name of a teacher, "owner/name"; None for one that did not come from there."""
    kind, _, name = teacher.partition(":")
    if kind == "hf-hub":
        return name.partition("@")[0]
    known = timm.get_pretrained_cfg(name) if kind == "timm" and timm.is_model(name.partition(".")[0]) else None
    return known.hf_hub_id if known is not None else None


def _introduction(report: Report, data: LabelledImages | None) -> str:
    teacher = report.teacher.arch or Path(report.teacher.source).name
    text = (
        f"An image classifier distilled from {plain(teacher)} with dfkd, without the teacher's training data: it "
        f"learned from {report.images.wording.origin}."
    )
    if report.student.accuracy is None or data is None:
        return f"{text} Its accuracy on real pictures **was not measured**."
    reached = (
        f"an accuracy of **{share(report.student.accuracy)}**, where the teacher was never right,"
        if report.relative_accuracy is None
        else f"**{share(report.relative_accuracy)} of the teacher's accuracy**"
    )
    return f"{text} It reaches {reached} on {len(data):,} pictures that were used for nothing else."


def _use(report: Report) -> str:
    own = report.student.arch in REFERENCE_ARCHS
    lines = ["import timm", *(["import dfkd_cli.models  # adds this architecture to timm"] if own else []), ""]
    lines += [
        'model = timm.create_model("local-dir:THIS_FOLDER", pretrained=True).eval()',
        'model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True).eval()  # once published',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
    ]
    return "## Use\n\n```python\n" + "\n".join(lines) + "\n```"


def _making(report: Report) -> str:
    lines = [
        f"- recipe `{report.recipe.name}`, every value in `recipe.yaml`; seed {report.seed}",
        f"- {report.images.counted()} {report.steps:,} steps, {duration(report.time.total_s)} on "
        f"{report.environment.gpu or report.environment.cpu}",
        f"- agreement with the teacher: {share(report.agreement)} on {report.agreement_on}",
        f"- sha256 of the teacher `{report.teacher.sha256 or 'unknown'}`, of the student `{report.student.sha256}`",
        *(f"- {plain(note)}" for note in report.notes),
    ]
    listed = "\n".join(lines)
    more = (
        "Curves, confusion and time split are in `report.html`.\n\n"
        f"![{report.images.wording.name}, by the class the teacher sees in them](samples.png)"
    )
    return f"## How it was made\n\n{listed}\n\n{fenced(report.command)}\n\n{more}"


def _limits(report: Report) -> str:
    wording = report.images.wording
    return f"## Limits\n\n- {wording.limit}\n- {_BIASES}\n- **Privacy**: {wording.privacy}\n"
