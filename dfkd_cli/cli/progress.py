"""The progress of a compression on stderr: a live bar on a terminal, lines of text otherwise."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from dfkd_cli.training.event import Event

Kind = Literal["auto", "bar", "text", "none"]
SHOWN = {  # metrics of an event, and their labels
    "loss": "loss",
    "agreement": "agreement",
    "synthesis/bn": "BatchNorm distance",
    "synthesis/hit_rate": "requested class",
}
SMALLEST_SHARE = 0.002  # of a run, from which on its speed is known
LINE_EVERY_S = 10.0  # between two lines of text


def make_progress(kind: Kind = "auto", notes: bool = True, verbose: bool = False) -> PlainProgress:
    """Return what shows a run; `auto` is the live bar when stderr is a terminal, else lines of text."""
    if kind == "auto":
        kind = "bar" if sys.stderr.isatty() else "text"
    return {"bar": LiveProgress, "text": PlainProgress, "none": NoProgress}[kind](notes, verbose)


class PlainProgress:
    """Lines of text: one every few seconds and per change of the phase; with `verbose` one per event with all terms."""

    def __init__(self, notes: bool = True, verbose: bool = False) -> None:
        self.notes, self.verbose = notes, verbose
        self.remaining = _Remaining()
        self.printed = float("-inf")
        self.phase = ""
        self.speed = _Speed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Print a note."""
        if self.notes:
            print(f"note: {text}", file=sys.stderr)

    def event(self, event: Event) -> None:
        """Print a line for the event when one is due."""
        line = self.line(event)
        now = time.monotonic()
        due = now - self.printed >= LINE_EVERY_S or event.progress >= 1.0 or event.phase != self.phase
        if due or self.verbose:
            self.printed, self.phase = now, event.phase
            print(f"{event.progress:4.0%}  {line}", file=sys.stderr, flush=True)

    def line(self, event: Event) -> str:
        """Return the time left, when it is known, and the figures of the event."""
        left = self.remaining.time_left(event.progress)
        text = describe(event, self.speed.images_per_s(event), self.verbose)
        return text if left is None or event.progress >= 1.0 else f"{left} left, {text}"


class NoProgress(PlainProgress):
    """Notes without progress."""

    def event(self, event: Event) -> None:
        """Print nothing."""


class LiveProgress(PlainProgress):
    """A bar with time left, losses, agreement and speed."""

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.table import Column

        # A narrow terminal cuts the end of the text, not the bar or the percentage.
        self.bar = Progress(
            BarColumn(bar_width=16, table_column=Column(min_width=16)),
            TaskProgressColumn(table_column=Column(min_width=4, no_wrap=True)),
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            console=Console(stderr=True, highlight=False),
            expand=True,
        )
        self.task = self.bar.add_task("loading", total=1.0)
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.phase:  # no event: a plan, or a run that failed before the training
            self.bar.update(self.task, visible=False)
        self.bar.stop()

    def note(self, text: str) -> None:
        """Print a note above the bar."""
        if self.notes:
            self.bar.console.print(f"note: {text}", markup=False, soft_wrap=True)

    def event(self, event: Event) -> None:
        """Update the bar."""
        self.phase = event.phase
        self.bar.update(self.task, completed=event.progress, description=self.line(event))


class _Remaining:
    """The time that the rest of a run takes at the speed since its first event.

    Loading, the warm-up and the earlier part of a resumed run have another speed and do not count.
    """

    def __init__(self) -> None:
        self.began: tuple[float, float] | None = None  # time and progress of the first event

    def time_left(self, progress: float) -> str | None:
        now = time.monotonic()
        if self.began is None or progress == self.began[1]:  # no progress yet: a warm-up of a run that counts steps
            self.began = now, progress
        done = progress - self.began[1]
        # The first steps, which compile, say nothing about the others.
        return None if 0.0 < done < SMALLEST_SHARE else time_left(now - self.began[0], done, 1.0 - progress)


class _Speed:
    """The images per second between two events."""

    def __init__(self) -> None:
        self.images, self.time = 0, time.monotonic()

    def images_per_s(self, event: Event) -> float:
        now = time.monotonic()
        rate = (event.images - self.images) / max(now - self.time, 1e-9)
        self.images, self.time = event.images, now
        return rate


def describe(event: Event, images_per_s: float, all_terms: bool = False) -> str:
    """Return one line with phase, losses, agreement, images and speed; with `all_terms` all metrics."""
    shown = [f"{event.phase}, step {event.step:,}"]
    for name in event.metrics if all_terms else SHOWN:
        value = event.metrics.get(name)
        if isinstance(value, float) and not name.startswith("images/"):
            label = SHOWN.get(name) or name.removeprefix("synthesis/").replace("_", " ")
            shown.append(f"{label} {value:.3f}")
    shown.append(f"{event.metrics['images/kept']:,.0f} of {event.metrics['images/generated']:,.0f} images kept")
    if event.phase == "training":
        shown.append(f"{images_per_s:,.0f} images/s")
    return ", ".join(shown)


def time_left(elapsed: float, progress: float, rest: float) -> str | None:
    """Return the time for `rest`, e.g. 12m05s, when `progress` took `elapsed` seconds; None while that is unknown."""
    if progress <= 0.0:
        return None if rest > 0.0 else "0s"
    minutes, seconds = divmod(round(elapsed * rest / progress), 60)
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
