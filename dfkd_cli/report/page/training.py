"""The curves of a run, grouped and explained."""

from itertools import count

from dfkd_cli.report.page.curves import Curve, grouped
from dfkd_cli.report.page.markup import Markup, escape, join, paragraph
from dfkd_cli.report.page.plots import draw

# By the part of a quantity's name before "/", in this order on the page; other groups follow.
_TITLES = {
    "": "The student",
    "synthesis": "Making images",
    "images": "Number of images",
    "buffer": "The images kept",
    "bank": "The images kept",
    "priority": "What is learned next",
}
# By a quantity's name, or by the part of it after "/"; others go without.
_MEANINGS = {
    "loss": "what the student minimises: the sum of its terms",
    "kd": "distance of its answers from the teacher's",
    "agreement": "share of training images for which both name the same class",
    "bn": "distance from the teacher's BatchNorm statistics",
    "class_prior": "how unsure the teacher is of the class asked for",
    "adversarial": "minus the student's disagreement with the teacher",
    "balance": "minus the evenness of the classes in a batch",
    "activation": "minus the size of the teacher's embedding",
    "total_variation": "roughness of the images",
    "hit_rate": "share of images the teacher puts in the class asked for",
    "confidence": "the teacher's largest probability",
    "phi_quartiles": "weight by rarity and difficulty, spread over images",
    "class_shares": "spread over the classes; dashed: all equally common",
    "priority/discrepancy": "how much is left to learn from the images kept",
    "priority/weight": "correction for drawing hard images more often",
    "generated": "made so far",
    "kept": "held to learn from",
}


def training(curves: list[Curve]) -> list[Markup]:
    """Every curve of the run under the heading of its group; nothing when nothing was logged."""
    if not curves:
        return []
    parts, numbers = [paragraph(_explanation(curves))], count()
    span = min(curve.steps[0] for curve in curves), max(curve.steps[-1] for curve in curves)
    known = list(_TITLES)
    groups = grouped(curves).items()
    for prefix, members in sorted(groups, key=lambda group: known.index(group[0]) if group[0] in known else len(known)):
        figures = [_figure(curve, draw(curve, next(numbers), span)) for curve in members]
        title = escape(_TITLES.get(prefix, prefix.replace("_", " ").capitalize()))
        parts.append(Markup(f'<h3>{title}</h3>\n<div class="plots">\n{join(figures)}\n</div>'))
    return parts


def _figure(curve: Curve, drawn: Markup) -> Markup:
    meaning = _MEANINGS.get(curve.name) or _MEANINGS.get(curve.name.rpartition("/")[2], "")
    middle = curve.values[-1, curve.values.shape[1] // 2]
    last = f"{middle:,.0f}" if abs(middle) >= 1000 else f"{middle:.4g}"
    caption = f"<span>{escape(curve.label)}</span><b>{last}</b><small>{escape(meaning)}</small>"
    return Markup(f"<figure><figcaption>{caption}</figcaption>{drawn}</figure>")


def _explanation(curves: list[Curve]) -> str:
    text = "Each over the student's steps; the number is the last value."
    if any(curve.steps[0] < 0 for curve in curves):
        text += " Shaded, left of 0: making the first images, before the student's first step."
    if any(curve.entries > 1 for curve in curves):
        text += " Bands hold all and the middle half of the entries, the line is their median."
    return text
