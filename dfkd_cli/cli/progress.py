"""What a running compression shows: a live bar on a terminal, plain lines everywhere else. Always on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from dfkd_cli.engine import Event

LINE_EVERY_S = 10.0  # plain lines are for logs, where fewer are better


def make_progress() -> PlainProgress:
    """The live bar when stderr is a terminal, else plain lines."""
    return LiveProgress() if sys.stderr.isatty() else PlainProgress()


class PlainProgress:
    """One line every few seconds and at the end of a phase."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.printed = float("-inf")
        self.phase = ""
        self.speed = _Speed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Prints the sentence."""
        print(f"note: {text}", file=sys.stderr)

    def event(self, event: Event) -> None:
        """Prints a line when the last one is long enough ago."""
        rate = self.speed.images_per_s(event)
        now = time.monotonic()
        if now - self.printed >= LINE_EVERY_S or event.progress >= 1.0 or event.phase != self.phase:
            self.printed, self.phase = now, event.phase
            left = time_left(now - self.started, event.progress)
            print(f"{event.progress:4.0%}  {describe(event, rate)}, {left} left", file=sys.stderr, flush=True)


class LiveProgress(PlainProgress):
    """A bar with losses, agreement, speed and time left."""

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self.bar = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True, highlight=False),
        )
        self.task = self.bar.add_task("loading", total=1.0)
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def note(self, text: str) -> None:
        """Prints the sentence above the bar."""
        self.bar.console.print(f"note: {text}", markup=False, soft_wrap=True)

    def event(self, event: Event) -> None:
        """Moves the bar."""
        rate = self.speed.images_per_s(event)
        left = time_left(time.monotonic() - self.started, event.progress)
        self.bar.update(self.task, completed=event.progress, description=f"{describe(event, rate)}, {left} left")


class _Speed:
    """Images per second between two events."""

    def __init__(self) -> None:
        self.images, self.time = 0, time.monotonic()

    def images_per_s(self, event: Event) -> float:
        now = time.monotonic()
        rate = (event.images - self.images) / max(now - self.time, 1e-9)
        self.images, self.time = event.images, now
        return rate


def describe(event: Event, images_per_s: float) -> str:
    """One line of what matters: phase, loss terms, agreement and speed."""
    shown = [f"{event.phase}, step {event.step:,}"]
    for name in ("loss", "agreement", "synthesis/bn", "synthesis/hit_rate"):
        value = event.metrics.get(name)
        if isinstance(value, float):
            shown.append(f"{name.removeprefix('synthesis/').replace('_', ' ')} {value:.3f}")
    shown.append(f"{event.metrics['images/kept']:,.0f} of {event.metrics['images/generated']:,.0f} images kept")
    if event.phase == "training":
        shown.append(f"{images_per_s:,.0f} images/s")
    return ", ".join(shown)


def time_left(elapsed: float, progress: float) -> str:
    """The rest of a run at its speed so far, e.g. 12m05s; a question mark before anything is known."""
    if progress <= 0.0:
        return "?"
    minutes, seconds = divmod(round(elapsed * (1.0 - progress) / progress), 60)
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
