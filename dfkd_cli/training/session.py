"""Training in a world where processes die: checkpoints, a way back from a diverged loss, and Ctrl-C."""

import io
import time
from typing import Any, Protocol

import torch

from dfkd_cli.errors import DivergedError
from dfkd_cli.training.checkpoint import Checkpoints, Interval
from dfkd_cli.training.engine import Distillation, Event
from dfkd_cli.training.interruption import Interruption
from dfkd_cli.training.metrics_log import MetricsLog

LONGEST_SILENCE_S = 10.0
SMALLER_STEP = 0.1  # of the learning rate, after a loss that was not finite


class Listener(Protocol):
    """Hears what happens while it happens."""

    def note(self, text: str) -> None:
        """One sentence the user should know."""

    def event(self, event: Event) -> None:
        """The loop went on."""


class Session:
    """One process's part of a run, from its start or a checkpoint to its end or an interruption.

    `started`: when the run would have started had it never stopped, in time.monotonic().
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
        self.said: set[str] = set()
        self.first: bytes | None = None  # the state before the first step, until there is a checkpoint

    def resume(self, saved: dict[str, Any]) -> None:
        """Takes the run to where `saved`, of `Checkpoints.load`, was written."""
        self._restore(saved)
        self.begun -= saved["training_s"]
        self.distillation.remarks.append(f"The run was interrupted and went on from step {self.distillation.step:,}.")
        self._say_news()

    def train(self) -> None:
        """Trains to the end; every event goes to the listener and the metrics.

        Raises DivergedError when the loss is not finite for a second time, and KeyboardInterrupt after Ctrl-C, with a
        checkpoint of the last step.
        """
        if self.checkpoints.step() is None:
            self.first = _packed(self._state())
        self.heard_at = time.monotonic()
        self.saved_at = self.heard_at, self.distillation.step
        with Interruption() as interruption:
            while True:
                try:
                    return self._train(interruption)
                except DivergedError as error:
                    self._go_back(error)

    def _train(self, interruption: Interruption) -> None:
        for event in self.distillation.events(lambda: interruption.requested or self._due() or self._silent()):
            self.heard_at = time.monotonic()
            self.listener.event(event)
            self.metrics.write(event, time.monotonic() - self.begun)
            self._say_news()
            if interruption.requested or self._due():
                self._save()
            if interruption.requested:
                raise KeyboardInterrupt

    def _due(self) -> bool:
        seconds, step = self.saved_at
        return self.interval.over(time.monotonic() - seconds, self.distillation.step - step)

    def _silent(self) -> bool:
        """Whether the listener has waited long enough to wonder; on slow machines the usual interval takes minutes."""
        return time.monotonic() - self.heard_at >= LONGEST_SILENCE_S

    def _save(self) -> None:
        self.checkpoints.save(self._state(), self.distillation.step)
        self.saved_at, self.first = (time.monotonic(), self.distillation.step), None

    def _state(self) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "run": self.distillation.state_dict(),
            "metrics_bytes": self.metrics.size(),
            "training_s": now - self.begun,
            "total_s": now - self.started,
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self.distillation.load_state_dict(saved["run"])
        self.metrics.cut(saved["metrics_bytes"])

    def _go_back(self, error: DivergedError) -> None:
        """To the last checkpoint and on with a smaller step; only once."""
        saved = self.checkpoints.load(self.listener.note) if self.first is None else _unpacked(self.first)
        if saved is None or self.distillation.rate_scale < 1.0:
            self.checkpoints.clear()  # going on from them would end here again
            raise error
        diverged_at = self.distillation.step
        # The time has passed, whatever came of it.
        saved["run"] |= {"clock": self.distillation.clock.state_dict(), "seconds": self.distillation.stopwatch.totals()}
        self._restore(saved)
        self.saved_at = time.monotonic(), self.distillation.step
        self.distillation.rate_scale = SMALLER_STEP
        self.distillation.remarks.append(
            f"The loss was not finite near step {diverged_at:,}: the run went back to step "
            f"{self.distillation.step:,} and continued with {SMALLER_STEP:g} of the learning rate."
        )
        self._say_news()

    def _say_news(self) -> None:
        for note in self.distillation.notes():
            if note not in self.said:
                self.listener.note(note)
        self.said.update(self.distillation.notes())


def _packed(state: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def _unpacked(content: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
