"""What a running compression shows: a live bar on a terminal, plain lines everywhere else. Always on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from dfkd_cli.training.engine import Event

Kind = Literal["auto", "bar", "text", "none"]
SHOWN = ("loss", "agreement", "synthesis/bn", "synthesis/hit_rate")  # of an event's metrics
LINE_EVERY_S = 10.0  # plain lines are for logs, where fewer are better


def make_progress(kind: Kind = "auto", notes: bool = True, verbose: bool = False) -> PlainProgress:
    """What shows a run: `auto` is the live bar when stderr is a terminal, else plain lines."""
    if kind == "auto":
        kind = "bar" if sys.stderr.isatty() else "text"
    return {"bar": LiveProgress, "text": PlainProgress, "none": NoProgress}[kind](notes, verbose)


class PlainProgress:
    """One line every few seconds and at the end of a phase; with `verbose` one for every event, with all terms."""

    def __init__(self, notes: bool = True, verbose: bool = False) -> None:
        self.notes, self.verbose = notes, verbose
        self.pace = _Pace()
        self.printed = float("-inf")
        self.phase = ""
        self.speed = _Speed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Prints the sentence."""
        if self.notes:
            print(f"note: {text}", file=sys.stderr)

    def event(self, event: Event) -> None:
        """Prints a line when the last one is long enough ago."""
        line = self.line(event)
        now = time.monotonic()
        due = now - self.printed >= LINE_EVERY_S or event.progress >= 1.0 or event.phase != self.phase
        if due or self.verbose:
            self.printed, self.phase = now, event.phase
            print(f"{event.progress:4.0%}  {line}", file=sys.stderr, flush=True)

    def line(self, event: Event) -> str:
        """How long the rest will take, and what the event says."""
        left = self.pace.time_left(event.progress)
        return f"{left} left, {describe(event, self.speed.images_per_s(event), self.verbose)}"


class NoProgress(PlainProgress):
    """Notes only."""

    def event(self, event: Event) -> None:
        """Nothing."""


class LiveProgress(PlainProgress):
    """A bar with losses, agreement, speed and time left."""

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.table import Column

        # On a narrow terminal the end of the text gives way, not the bar or the percentage.
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
        self.bar.stop()

    def note(self, text: str) -> None:
        """Prints the sentence above the bar."""
        if self.notes:
            self.bar.console.print(f"note: {text}", markup=False, soft_wrap=True)

    def event(self, event: Event) -> None:
        """Moves the bar."""
        self.bar.update(self.task, completed=event.progress, description=self.line(event))


class _Pace:
    """How long the rest takes at the pace since the first event.

    What came before, loading and the earlier part of a resumed run, was of another pace.
    """

    def __init__(self) -> None:
        self.began: tuple[float, float] | None = None  # time and progress of the first event

    def time_left(self, progress: float) -> str:
        now = time.monotonic()
        if self.began is None or progress == self.began[1]:  # nothing counted yet: filling a buffer by steps
            self.began = now, progress
        return time_left(now - self.began[0], progress - self.began[1], 1.0 - progress)


class _Speed:
    """Images per second between two events."""

    def __init__(self) -> None:
        self.images, self.time = 0, time.monotonic()

    def images_per_s(self, event: Event) -> float:
        now = time.monotonic()
        rate = (event.images - self.images) / max(now - self.time, 1e-9)
        self.images, self.time = event.images, now
        return rate


def describe(event: Event, images_per_s: float, all_terms: bool = False) -> str:
    """One line of what matters: phase, loss terms, agreement and speed."""
    shown = [f"{event.phase}, step {event.step:,}"]
    for name in event.metrics if all_terms else SHOWN:
        value = event.metrics.get(name)
        if isinstance(value, float) and not name.startswith("images/"):
            shown.append(f"{name.removeprefix('synthesis/').replace('_', ' ')} {value:.3f}")
    shown.append(f"{event.metrics['images/kept']:,.0f} of {event.metrics['images/generated']:,.0f} images kept")
    if event.phase == "training":
        shown.append(f"{images_per_s:,.0f} images/s")
    return ", ".join(shown)


def time_left(elapsed: float, progress: float, rest: float) -> str:
    """How long the rest takes when `progress` took so long, e.g. 12m05s; a question mark before anything is known."""
    if progress <= 0.0:
        return "?" if rest > 0.0 else "0s"
    minutes, seconds = divmod(round(elapsed * rest / progress), 60)
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
