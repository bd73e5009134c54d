"""A plot of accuracy against latency."""

import io
import logging
from pathlib import Path, PurePath

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.evaluation.benchmark import Speed
from dfkd_cli.machine.files import printable, write_atomically


def check_plot(path: Path) -> None:
    """Raise UsageError when no plot can be written to `path`."""
    known = FigureCanvasAgg.filetypes
    if path.suffix.removeprefix(".").lower() not in known:
        raise UsageError(f"--plot {path}: the name must end with the form of the plot, such as .png, .svg or .pdf")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--plot {path}: name a file in an existing folder")


def write_plot(speeds: list[Speed], path: Path) -> None:
    """Write a point for each network: its accuracy in percent against its latency in ms. Replaces an earlier file."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its messages about the font cache
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for speed in speeds:
        if speed.accuracy is not None:
            place = speed.latency_ms, 100 * speed.accuracy
            axes.scatter(*place)
            name = printable(PurePath(speed.source).name).replace("$", r"\$")
            axes.annotate(name, place, xytext=(6, 4), textcoords="offset points")
    axes.set_xlabel("latency of one image, ms (median)")
    axes.set_ylabel("accuracy, %")
    axes.set_xlim(left=0)
    axes.margins(x=0.25, y=0.1)
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix(".").lower())
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise DfkdError(f"cannot write {path}: {error.strerror}") from error
