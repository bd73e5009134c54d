"""The one training loop. It knows no method, prints nothing and writes no file: it yields what happened."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from dfkd_cli.clock import Clock
from dfkd_cli.errors import DfkdError
from dfkd_cli.methods.base import Batch, Method, Setting, Terms
from dfkd_cli.recipe_values import require
from dfkd_cli.schedules import cosine, ramp
from dfkd_cli.stopwatch import Stopwatch


@dataclass(frozen=True)
class TrainConfig:
    """How a student is trained, whatever the method."""

    steps: int  # student updates
    budget: float | None  # seconds for the whole run; replaces `steps`
    compile: Literal["auto", "on", "off"]  # torch.compile; auto: for runs long enough to win its cost back
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    warmup: float  # share of the training in which the learning rate grows from 0
    refresh_every: int  # student steps between two renewals of the images
    report_every: int  # steps, of either kind, between two events

    def __post_init__(self) -> None:
        require(self, 1, "steps", "refresh_every", "report_every")
        require(self, 2, "batch_size")  # the student's BatchNorm needs two images
        require(self, 0, "lr", "momentum", "weight_decay", "warmup")


class Event(NamedTuple):
    """What the loop did since the last event; `metrics` are means over that time."""

    phase: Literal["filling", "training"]
    step: int  # student steps done
    progress: float  # share of the training done
    images: int  # images the student has learned from
    metrics: dict[str, float | list[float]]


class Distillation:
    """One run of the loop: trains `setting.student` in place and can be saved and restored between two events."""

    def __init__(self, method: Method, setting: Setting, config: TrainConfig, clock: Clock):
        self.method, self.setting, self.config, self.clock = method, setting, config, clock
        self.stopwatch = Stopwatch(setting.runtime.device)
        self.trained = nn.ModuleList([setting.student, *method.extra_modules()])
        self.optimizer = torch.optim.SGD(
            self.trained.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, nesterov=True
        )
        self.step = 0
        self.refreshed_at = -1

    def run(self) -> Iterator[Event]:
        """Yields an event every `report_every` steps and one at the end."""
        pending = _Means()
        while (progress := self.clock.progress(self.step)) < 1.0:
            filling = not self.method.ready(progress)
            if filling or (self.step % self.config.refresh_every == 0 and self.step != self.refreshed_at):
                pending.add(self._refresh(progress))
            if not filling:
                pending.add(self._student_step(progress))
            if pending.rounds >= self.config.report_every:
                yield self._event("filling" if filling else "training", pending)
        if self.step == 0:
            raise DfkdError("the budget ended before the first training step; give --budget more time")
        yield self._event("training", pending)

    def _refresh(self, progress: float) -> Terms:
        self.refreshed_at = self.step
        with self.stopwatch.measure("synthesis"), frozen(self.setting.student):
            return self.method.refresh(progress)

    def _student_step(self, progress: float) -> Terms:
        rate = cosine(progress, self.config.lr) * ramp(progress, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.stopwatch.measure("distillation"):
            batch: Batch = self.method.sample()
            self.trained.train()
            terms, logged = self.method.student_loss(batch, progress)
            loss = torch.stack(list(terms.values())).sum()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        self.step += 1
        return {"loss": loss, **terms, **logged}

    def _event(self, phase: Literal["filling", "training"], pending: "_Means") -> Event:
        metrics = pending.take()
        loss = metrics.get("loss", 0.0)
        if isinstance(loss, float) and not math.isfinite(loss):
            seen = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items() if isinstance(value, float))
            raise DfkdError(f"the loss is not finite near step {self.step} ({seen}); lower train.lr or a loss weight")
        metrics |= {f"images/{name}": float(count) for name, count in self.method.counts()._asdict().items()}
        done = self.clock.progress(self.step)
        return Event(phase, self.step, done, self.step * self.config.batch_size, metrics)

    def notes(self) -> list[str]:
        """What the user should know of this run, one sentence each."""
        return [*self.method.notes, *self.setting.runtime.notes]

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs besides the teacher and the recipe."""
        return {
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "clock": self.clock.state_dict(),
            "step": self.step,
            "refreshed_at": self.refreshed_at,
            "rng": self.setting.rng.get_state(),
            "global_rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned, for the same teacher, recipe and seed."""
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        self.clock.load_state_dict(state["clock"])
        self.step, self.refreshed_at = state["step"], state["refreshed_at"]
        self.setting.rng.set_state(state["rng"])
        torch.set_rng_state(state["global_rng"])


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in eval mode and its weights take no gradients; afterwards both are as before."""
    training = network.training
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        network.train(training)
        for parameter in wanted:
            parameter.requires_grad_(True)


class _Means:
    """Means of what the steps return, summed on the device and read by the host only when an event is due."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.rounds = 0

    def add(self, terms: Terms) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach()
            self.counts[name] = self.counts.get(name, 0) + 1
        self.rounds += 1

    def take(self) -> dict[str, float | list[float]]:
        metrics: dict[str, float | list[float]] = {}
        for name, value in self.sums.items():
            metrics[name] = (value / self.counts[name]).tolist()
        self.__init__()
        return metrics
