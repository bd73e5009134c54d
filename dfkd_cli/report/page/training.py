"""The plots of a run's curves, in groups and with explanations."""

from itertools import count
from typing import NamedTuple

from dfkd_cli.report.page.curves import Curve, grouped
from dfkd_cli.report.page.plots import Drawing, draw

# Keys are the part of a quantity's name before "/". Groups are shown in this order; other groups follow.
_TITLES = {
    "": "Student",
    "synthesis": "Image source",
    "images": "Number of images",
    "buffer": "Stored images",
    "priority": "Priorities of stored images",
}
# Keys are a quantity's name, or the part of it after "/". Other quantities have no explanation.
_EXPLANATIONS = {
    "loss": "what the student minimises: the sum of its terms",
    "kd": "distance of the student's predictions from the teacher's",
    "agreement": "fraction of training images for which student and teacher predict the same class",
    "bn": "distance from the teacher's BatchNorm statistics",
    "bn_share": "fraction of the weight of bn that is in force",
    "class_prior": "the teacher's cross-entropy against the requested or the predicted classes",
    "adversarial": "negative disagreement of student and teacher",
    "balance": "negative entropy of the classes in a batch",
    "activation": "negative size of the teacher's embedding",
    "total_variation": "mean difference of neighbouring pixels",
    "hit_rate": "fraction of images that the teacher assigns to the requested class",
    "confidence": "the teacher's largest probability",
    "phi_quartiles": "weight by rarity and difficulty, over the images",
    "class_shares": "fraction of each class; dashed: uniform distribution",
    "priority/discrepancy": "disagreement of student and teacher on stored images",
    "priority/weight": "correction for drawing difficult images more often",
    "generated": "made so far",
    "kept": "available for training",
}


class Plot(NamedTuple):
    """One curve with its texts."""

    label: str
    last: str  # value
    explanation: str
    drawing: Drawing


class PlotGroup(NamedTuple):
    """Plots under one heading."""

    title: str
    plots: list[Plot]


class Training(NamedTuple):
    """All plots of a run, and what the text above them must explain."""

    groups: list[PlotGroup]
    has_warmup: bool  # whether some curve begins before the student's first step
    has_bands: bool  # whether some curve shows the entries of a vector


def training(curves: list[Curve]) -> Training:
    """Return a plot of each curve, in groups; no groups without curves."""
    if not curves:
        return Training([], False, False)
    span = min(curve.steps[0] for curve in curves), max(curve.steps[-1] for curve in curves)
    known, numbers = list(_TITLES), count()
    groups = sorted(grouped(curves).items(), key=lambda g: known.index(g[0]) if g[0] in known else len(known))
    return Training(
        groups=[
            PlotGroup(
                _TITLES.get(prefix, prefix.replace("_", " ").capitalize()),
                [_plot(curve, draw(curve, next(numbers), span)) for curve in members],
            )
            for prefix, members in groups
        ],
        has_warmup=span[0] < 0,
        has_bands=any(curve.entries > 1 for curve in curves),
    )


def _plot(curve: Curve, drawing: Drawing) -> Plot:
    explanation = _EXPLANATIONS.get(curve.name) or _EXPLANATIONS.get(curve.name.rpartition("/")[2], "")
    middle = curve.values[-1, curve.values.shape[1] // 2]
    last = f"{middle:,.0f}" if abs(middle) >= 1000 else f"{middle:.4g}"
    return Plot(curve.label, last, explanation, drawing)
