"""Training with checkpoints, a restart after a diverged loss, and a clean end after Ctrl-C."""

import time
from typing import Any, Protocol

from dfkd_cli.errors import DivergedError
from dfkd_cli.machine.packing import packed, unpacked
from dfkd_cli.training.checkpoint import Checkpoints, Interval
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.event import Event
from dfkd_cli.training.interruption import Interruption
from dfkd_cli.training.metrics_log import MetricsLog

LONGEST_GAP_S = 10.0  # between two events
RATE_AFTER_DIVERGENCE = 0.1  # share of the learning rate


class Listener(Protocol):
    """Receives notes and events during a run."""

    def note(self, text: str) -> None:
        """Receive one sentence for the user."""

    def event(self, event: Event) -> None:
        """Receive an event of the training loop."""


class SilentListener:
    """A listener that ignores everything."""

    def note(self, text: str) -> None:
        """Ignore a sentence for the user."""

    def event(self, event: Event) -> None:
        """Ignore the progress of the loop."""


class Session:
    """The share of a run in one process, from the start or a checkpoint to the end or an interruption.

    `started` is the start of the run in time.monotonic(), moved by the time that earlier processes used.
    """

    def __init__(
        self,
        distillation: Distillation,
        checkpoints: Checkpoints,
        interval: Interval,
        metrics: MetricsLog,
        listener: Listener,
        started: float,
    ):
        self.distillation, self.checkpoints, self.interval = distillation, checkpoints, interval
        self.metrics, self.listener, self.started = metrics, listener, started
        self.begun = time.monotonic()
        self.noted: set[str] = set()
        self.initial: bytes | None = None  # the state before the first step; None once there is a checkpoint

    def resume(self, saved: dict[str, Any]) -> None:
        """Restore the state `saved`, which `Checkpoints.load` returned."""
        self._restore(saved)
        self.begun -= saved["training_s"]
        self.distillation.remarks.append(f"The run was interrupted and went on from step {self.distillation.step:,}.")
        self._pass_new_notes()

    def train(self) -> None:
        """Train to the end and pass every event to the listener and the metrics.

        Raises DivergedError when the loss is not finite for a second time, and KeyboardInterrupt after Ctrl-C, when a
        checkpoint of the last step is written.
        """
        if self.checkpoints.step() is None:
            self.initial = packed(self._state())
        self.event_at = time.monotonic()
        self.saved_at = self.event_at, self.distillation.step
        with Interruption() as interruption:
            while True:
                try:
                    return self._train(interruption)
                except DivergedError as error:
                    self._go_back(error)

    def _train(self, interruption: Interruption) -> None:
        for event in self.distillation.events(lambda: interruption.requested or self._due() or self._gap_is_long()):
            self.event_at = time.monotonic()
            self.listener.event(event)
            self.metrics.write(event, time.monotonic() - self.begun)
            self._pass_new_notes()
            world = self.distillation.world
            stopped = world.any(interruption.requested)
            if stopped or world.any(self._due()):
                self._save()
            if stopped:
                raise KeyboardInterrupt

    def _due(self) -> bool:
        seconds, step = self.saved_at
        return self.interval.over(time.monotonic() - seconds, self.distillation.step - step)

    def _gap_is_long(self) -> bool:
        """Return whether an event is due although `report_every` steps, minutes on slow machines, are not done."""
        return time.monotonic() - self.event_at >= LONGEST_GAP_S

    def _save(self) -> None:
        self.checkpoints.save(self._state(), self.distillation.step)
        self.saved_at, self.initial = (time.monotonic(), self.distillation.step), None

    def _state(self) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "distillation": self.distillation.state_dict(),
            "metrics_bytes": self.metrics.size(),
            "training_s": now - self.begun,
            "total_s": now - self.started,
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self.distillation.load_state_dict(saved["distillation"])
        self.metrics.cut(saved["metrics_bytes"])

    def _go_back(self, error: DivergedError) -> None:
        """Restore the last checkpoint and lower the learning rate.

        Raises `error` the second time, and at the end of a budget.
        """
        saved = (
            self.distillation.world.spread(unpacked(self.initial))
            if self.initial
            else self.checkpoints.load(self.listener.note)
        )
        # A budget can leave no time for another attempt.
        over = saved is not None and self.distillation.clock.progress(saved["distillation"]["step"]) >= 1.0
        if saved is None or over or self.distillation.rate_scale < 1.0:
            self.checkpoints.clear()  # a run resumed from them would diverge again
            raise error
        diverged_at = self.distillation.step
        # The time since the checkpoint is used up.
        saved["distillation"] |= {
            "clock": self.distillation.clock.state_dict(),
            "seconds": self.distillation.stopwatch.totals(),
        }
        self._restore(saved)
        self.saved_at = time.monotonic(), self.distillation.step
        self.distillation.rate_scale = RATE_AFTER_DIVERGENCE
        self.distillation.remarks.append(
            f"The loss was not finite near step {diverged_at:,}: the run went back to step "
            f"{self.distillation.step:,} and continued with {RATE_AFTER_DIVERGENCE:g} of the learning rate."
        )
        self._pass_new_notes()

    def _pass_new_notes(self) -> None:
        for note in self.distillation.notes():
            if note not in self.noted:
                self.listener.note(note)
        self.noted.update(self.distillation.notes())
