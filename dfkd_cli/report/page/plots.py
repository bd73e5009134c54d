"""Plots of curves as inline SVG.

matplotlib draws them, because choosing ticks, laying out labels and drawing bands is its work and it is tested. Its SVG
is edited only to fit into a page: colours become the page's CSS variables, so that one plot serves the light and the
dark theme, and the identifiers become unique on the page.
"""

import io
import logging
import re
from typing import Any, NamedTuple

import numpy as np

from dfkd_cli.report.page.curves import Curve

# matplotlib needs fixed colours. Each of these is replaced by one of the page's variables.
_LINE, _BAND, _INK, _RULE, _SHADE = "#000001", "#000002", "#000003", "#000004", "#000005"
_VARIABLES = {
    _LINE: "var(--line)",
    _BAND: "var(--line)",
    _INK: "var(--quiet)",
    _RULE: "var(--rule)",
    _SHADE: "var(--shade)",
}
_SIZE = (3.3, 1.65)  # inches: a third of a wide page, or the width of a phone, so that text has the same size on both
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.size": 8.0, "axes.linewidth": 0.6, "svg.hashsalt": "dfkd"}


class Drawing(NamedTuple):
    """The parts of an inline SVG element that depend on the curve."""

    view_box: str
    body: str  # the content of the element: SVG, not text
    description: str  # for readers who cannot see the plot


def draw(curve: Curve, number: int, span: tuple[float, float]) -> Drawing:
    """Return a plot of the curve over the steps in `span`; `number` is unique among the plots of a page.

    A vector is drawn as the median of its entries, with bands of the middle half and of all entries. A class
    distribution also has a dashed line at the share of each class in a uniform distribution.
    """
    # Imported here, because the import is slow. Its messages about the font cache are of no interest to users.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _fill(axes, curve, span)
        _dress(axes)
        content = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(content, format="svg", transparent=True, metadata=nothing)
    return Drawing(*_inlined(content.getvalue(), number), describe(curve))


def describe(curve: Curve) -> str:
    """Return the first and the last value of the curve in words."""
    middle = curve.values[:, curve.values.shape[1] // 2]
    kind = "median " if curve.entries > 1 else ""
    return f"{curve.label}: {kind}{middle[0]:.3g} at the start, {middle[-1]:.3g} at step {curve.steps[-1]:,.0f}"


def _fill(axes, curve: Curve, span: tuple[float, float]) -> None:
    columns = curve.values.shape[1]
    if span[0] < 0:
        axes.axvspan(span[0], 0, color=_SHADE, linewidth=0)
    if columns > 1:
        for low, high, alpha in ((0, 4, 0.15), (1, 3, 0.25)):
            axes.fill_between(
                curve.steps, curve.values[:, low], curve.values[:, high], color=_BAND, alpha=alpha, linewidth=0
            )
    if curve.name.endswith("class_shares"):
        axes.axhline(1 / curve.entries, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
    marker = "o" if np.isfinite(curve.values).all(axis=1).sum() == 1 else ""  # a single point is not a visible line
    axes.plot(curve.steps, curve.values[:, columns // 2], color=_LINE, linewidth=1.4, marker=marker, markersize=3)
    if span[0] < span[1]:
        margin = 0.01 * (span[1] - span[0])
        axes.set_xlim(span[0] - margin, span[1] + margin)


def _dress(axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(y=0.08)
    for axis, count in ((axes.xaxis, 4), (axes.yaxis, 3)):
        axis.set_major_locator(MaxNLocator(count, integer=axis is axes.xaxis))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.tick_params(length=0, pad=3, labelcolor=_INK)


def _short(value: float) -> str:
    """Return a number in few characters: 20k, 1.5M, 0.04."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and unit != "k"):
            return f"{value / size:.4g}{unit}"
    return f"{value:.6g}" if abs(value) > 1e-12 else "0"


def _inlined(svg: str, number: int) -> tuple[str, str]:
    """Return view box and content of matplotlib's SVG element, with unique identifiers and the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, _, body = svg.partition(">")
    box = re.search(r'viewBox="([^"]*)"', head)
    if box is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>plot{number}-", body).replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    return box[1], body.strip().removesuffix("</svg>")
