"""The one training loop. It knows no method, prints nothing and writes no file: it yields what happened."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

from dfkd_cli.config.values import require, require_share
from dfkd_cli.errors import DfkdError, DivergedError
from dfkd_cli.machine.peak_memory import peak_memory_bytes
from dfkd_cli.training.accumulation import Accumulation
from dfkd_cli.training.averaging import WeightAverage
from dfkd_cli.training.clock import Clock
from dfkd_cli.training.means import Means
from dfkd_cli.training.method import Method, Setting, Terms
from dfkd_cli.training.optimizer import OptimizerConfig, OptimizerKind, make_optimizer, suited_optimizer
from dfkd_cli.training.random_streams import random_streams, set_random_streams
from dfkd_cli.training.schedules import cosine, ramp
from dfkd_cli.training.stopwatch import Stopwatch


@dataclass(frozen=True)
class TrainConfig(OptimizerConfig):
    """How a student is trained, whatever the method."""

    steps: int  # student updates
    budget: float | None  # seconds for the whole run; replaces `steps`
    compile: Literal["auto", "on", "off"]  # torch.compile; auto: for runs long enough to win its cost back
    init: Literal["teacher", "random"]  # the student's first weights: the teacher's layers that fit, or none of them
    batch_size: int
    lr_warmup: float  # share of the training in which the learning rate grows from 0
    average: float  # share of the steps so far over which the student's weights are averaged; 0: the last weights
    round_every: int  # student steps between two renewals of the images
    report_every: int  # steps, of either kind, between two events

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 1, "steps", "round_every", "report_every")
        require(self, 2, "batch_size")  # the student's BatchNorm needs two images
        require_share(self, "lr_warmup", "average")
        if self.budget is not None:
            require(self, 1, "budget")


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
        chosen = config.optimizer
        self.optimizer_kind: OptimizerKind = suited_optimizer(setting.student) if chosen == "auto" else chosen
        self.optimizer = make_optimizer(self.trained, self.optimizer_kind, config)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.accumulation = Accumulation(self.optimizer)
        self.average = WeightAverage(setting.student, config.average)
        self.step = 0
        self.refreshed_at = -1
        self.begun_at: float | None = None  # progress before the first student step
        self.rate_scale = 1.0  # of the learning rate
        self.remarks: list[str] = []  # what happened to this run, for `notes`
        if self.optimizer_kind == "adamw" and chosen == "auto":
            self.remarks.append("The student has no BatchNorm layers: it learns with AdamW instead of Muon.")
        sizes = setting.student.parameter_count(), setting.teacher.parameter_count()
        if sizes[0] >= sizes[1]:
            self.remarks.append(f"The student is not smaller: {sizes[0]:,} parameters, the teacher has {sizes[1]:,}.")
        self.earlier_peak_bytes = 0  # of memory, in the processes that this one goes on from

    def run(self, due: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Yields an event every `report_every` steps, after a step when `due` says so, and one at the end.

        Raises DivergedError when at an event the losses or the weights are not finite.
        """
        pending = Means()
        while (progress := self.clock.progress(self.step)) < 1.0:
            filling = not self.method.ready(progress)
            if filling or (self.step % self.config.round_every == 0 and self.step != self.refreshed_at):
                pending.add(self._refresh(progress))
            if not filling:
                pending.add(self._student_step(progress))
            if pending.rounds >= self.config.report_every or due():
                yield self._event("filling" if filling else "training", pending)
        if self.step == 0:
            raise DfkdError("the budget ended before the first training step; give --budget more time")
        self.average.apply()
        yield self._event("training", pending)

    def _refresh(self, progress: float) -> Terms:
        self.refreshed_at = self.step
        with self.stopwatch.measure("synthesis"), frozen(self.setting.student):
            return self.method.refresh(progress)

    def _student_step(self, progress: float) -> Terms:
        learned = self._learned(progress)
        share = self.rate_scale * cosine(learned, 1.0) * ramp(learned, self.config.lr_warmup)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = share * peak
        with self.stopwatch.measure("distillation"):
            batch = self.method.sample()
            self.trained.train()
            terms = self.accumulation.backward(batch, lambda part: self.method.student_loss(part, learned))
            self.optimizer.step()
            self.step += 1
            self.average.update(self.step)
        return terms

    def _learned(self, progress: float) -> float:
        """Share of the student's own training done: a budget also pays for the images made before it begins."""
        if self.begun_at is None:
            self.begun_at = progress
        return (progress - self.begun_at) / (1.0 - self.begun_at)

    def _event(self, phase: Literal["filling", "training"], pending: Means) -> Event:
        metrics = pending.take()
        self._check_finite(metrics)
        metrics |= {f"images/{name}": float(count) for name, count in self.method.counts()._asdict().items()}
        done = self.clock.progress(self.step)
        return Event(phase, self.step, done, self.step * self.config.batch_size, metrics)

    def _check_finite(self, metrics: dict[str, float | list[float]]) -> None:
        """Weights too: the last update of all comes after the last loss."""
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
        weights = [value for value in self.trained.state_dict().values() if value.is_floating_point()]
        numbers["size of the weights"] = float(nn.utils.get_total_norm(weights))
        if all(map(math.isfinite, numbers.values())):
            return
        seen = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
        raise DivergedError(f"the loss is not finite near step {self.step} ({seen}); lower train.lr or a loss weight")

    def notes(self) -> list[str]:
        """What the user should know of this run, one sentence each."""
        notes = (*self.method.notes, *self.setting.runtime.notes, *self.remarks)
        in_parts = (*self.method.remarks(), *self.accumulation.parts.note("every batch is learned from"))
        return list(dict.fromkeys(notes + in_parts))  # what was restored may say again what was said before

    def peak_bytes(self) -> int:
        """The most memory this run has held at once, earlier processes of it included."""
        return max(self.earlier_peak_bytes, peak_memory_bytes(self.setting.runtime.device))

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs besides the teacher and the recipe."""
        return {
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "method": self.method.state_dict(),
            "clock": self.clock.state_dict(),
            "step": self.step,
            "refreshed_at": self.refreshed_at,
            "begun_at": self.begun_at,
            "rate_scale": self.rate_scale,
            "parts": self.accumulation.parts.count,
            "remarks": list(self.remarks),
            "seconds": self.stopwatch.totals(),
            "peak_bytes": self.peak_bytes(),
            "random": random_streams(self.setting.rng),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned, for the same teacher, recipe and seed."""
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.method.load_state_dict(state["method"])
        self.clock.load_state_dict(state["clock"])
        self.step, self.refreshed_at, self.begun_at = state["step"], state["refreshed_at"], state["begun_at"]
        self.rate_scale, self.accumulation.parts.count = state["rate_scale"], state["parts"]
        self.remarks, self.earlier_peak_bytes = list(state["remarks"]), state["peak_bytes"]
        self.stopwatch.load(state["seconds"])
        set_random_streams(self.setting.rng, state["random"])


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
