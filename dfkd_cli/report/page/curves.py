"""The curves of a run: one per quantity of `metrics.jsonl`, over the student's steps."""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

MAX_POINTS = 300  # of a curve; longer runs are averaged, because a plot a few hundred pixels wide shows no more
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Curve(NamedTuple):
    """One logged quantity."""

    name: str  # as in metrics.jsonl
    steps: np.ndarray  # [N]; negative during the warm-up, before the student's first step
    values: np.ndarray  # [N, 1]; [N, 5] for a logged vector: quartiles over its entries
    entries: int  # of the logged vector, such as the number of classes; 1 for a number

    @property
    def label(self) -> str:
        """The name in words, without its group."""
        return self.name.rpartition("/")[2].replace("_", " ")


def read_curves(lines: Iterable[str]) -> list[Curve]:
    """Return one curve per quantity in the lines of `metrics.jsonl`, in the order of first appearance."""
    events = [json.loads(line) for line in lines if line.strip()]
    logged: dict[str, list[tuple[float, Any]]] = defaultdict(list)
    for step, event in zip(_steps(events), events, strict=True):
        for name, value in event["metrics"].items():
            logged[name].append((step, value))
    curves = [_curve(name, points) for name, points in logged.items()]
    return [curve for curve in curves if np.isfinite(curve.values).any()]


def grouped(curves: Iterable[Curve]) -> dict[str, list[Curve]]:
    """Return the curves by the part of their name before "/". The student's own, "", come first.

    The curve of the loss is left out if the loss has a single term, because the curves are equal.
    """
    groups: dict[str, list[Curve]] = {"": []}
    for curve in curves:
        groups.setdefault(curve.name.rpartition("/")[0], []).append(curve)
    own = groups[""]
    groups[""] = [c for c in own if c.name != "loss" or not any(_same(c, other) for other in own if other is not c)]
    return {prefix: members for prefix, members in groups.items() if members}


def _steps(events: list[dict[str, Any]]) -> list[float]:
    """Return the position of each event: its step, or a negative number for an event of the warm-up."""
    trained = [event["step"] for event in events if event["phase"] == "training"]
    before = len(events) - len(trained)
    apart = float(np.median(np.diff(trained))) if len(trained) > 1 else max([1, *trained])
    return [float(e["step"]) if e["phase"] == "training" else (i - before) * apart for i, e in enumerate(events)]


def _curve(name: str, points: list[tuple[float, Any]]) -> Curve:
    steps = np.array([step for step, _ in points])
    vectors = [np.atleast_1d(np.array(value, dtype=np.float64)) for _, value in points]
    entries = len(vectors[-1])
    values = np.stack([vector if entries == 1 else np.quantile(vector, _QUANTILES) for vector in vectors])
    values[~np.isfinite(values)] = np.nan
    bins = np.array_split(np.arange(len(steps)), min(MAX_POINTS, len(steps)))
    return Curve(name, np.array([steps[b].mean() for b in bins]), np.stack([values[b].mean(0) for b in bins]), entries)


def _same(one: Curve, other: Curve) -> bool:
    return one.values.shape == other.values.shape and np.allclose(one.values, other.values, equal_nan=True)
