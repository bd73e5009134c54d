"""The training loop of all methods. It prints nothing and writes no file: it yields events."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

from torch import Tensor, nn

from dfkd_cli.errors import DfkdError, DivergedError
from dfkd_cli.machine.peak_memory import peak_memory_bytes
from dfkd_cli.machine.world.batchnorm import synchronise
from dfkd_cli.networks.modes import frozen
from dfkd_cli.training.accumulation import Accumulation
from dfkd_cli.training.averaging import WeightAverage
from dfkd_cli.training.clock import Clock, shared_clock
from dfkd_cli.training.config import TrainConfig
from dfkd_cli.training.event import Event
from dfkd_cli.training.means import Means
from dfkd_cli.training.method import Batch, Method, StudentTerms
from dfkd_cli.training.optimizer import OptimizerKind, learning_rates, make_optimizer, suited_optimizer
from dfkd_cli.training.random_streams import random_streams, set_random_streams
from dfkd_cli.training.reshaping import Reshaping
from dfkd_cli.training.schedules import cosine, ramp
from dfkd_cli.training.setting import Setting, Terms
from dfkd_cli.training.shares import own_share
from dfkd_cli.training.stopwatch import Stopwatch

OWN = ("method", "random")  # what each process has of its own
# of the student's and the teacher's feature maps, and the share of the student's training that is done
Hints = Callable[[tuple[Tensor, ...], tuple[Tensor, ...], float], Terms]
STUDENT = "0"  # name of the student among the trained networks


class Distillation:
    """Trains `setting.student` in place. Its state can be saved and restored between two events."""

    def __init__(
        self,
        method: Method,
        setting: Setting,
        config: TrainConfig,
        clock: Clock,
        reshaping: Reshaping | None = None,
        hints: Hints | None = None,
    ):
        """`hints` returns terms of the recorded feature maps, which join those of the method."""
        self.method, self.setting, self.config = method, setting, config
        self.world = setting.runtime.world
        self.clock = shared_clock(clock, self.world)
        self.reshaping, self.hints = reshaping, hints
        self.stopwatch = Stopwatch(setting.runtime.device)
        chosen = config.optimizer
        self.optimizer_kind: OptimizerKind = suited_optimizer(setting.student) if chosen == "auto" else chosen
        self._follow_shape()
        rate = 1.0 if reshaping is None else reshaping.rate
        self.peaks = [rate * group["lr"] for group in self.optimizer.param_groups]
        self.accumulation = Accumulation(self.optimizer, self.world)
        self.step = 0
        self.round_at = -1  # the step before which the latest round was done
        self.warmup_ended = False
        self.begun_at: float | None = None  # progress at the first student step
        self.rate_scale = 1.0  # of the learning rate
        self.remarks: list[str] = []  # sentences about what happened during the run, for `notes`
        if self.optimizer_kind == "adamw" and chosen == "auto":
            self.remarks.append("The student has no BatchNorm layers: AdamW trains it instead of Muon.")
        sizes = setting.student.parameter_count(), setting.teacher.parameter_count()
        if reshaping is None and sizes[0] >= sizes[1]:
            self.remarks.append(f"The student is not smaller: {sizes[0]:,} parameters, the teacher has {sizes[1]:,}.")
        self.earlier_peak_bytes = 0  # peak memory of the processes that this one continues

    def events(self, due: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Train to the end; yield an event every `report_every` steps, after a step when `due`, and at the end.

        Raises DivergedError when the losses or the weights of an event are not finite.
        """
        pending = Means()
        while (progress := self.clock.progress(self.step)) < 1.0:
            warming = not (self.warmup_ended or self.method.source.ready(progress))
            if warming or (self.step % self.config.round_every == 0 and self.step != self.round_at):
                pending.add(self.round(progress))
            if not warming:
                pending.add(self.student_step(progress))
            if pending.added >= self.config.report_every or self.world.any(due()):
                yield self._event("warm-up" if warming else "training", pending)
        if self.step == 0:
            raise DfkdError("the budget ended before the first training step; give --budget more time")
        if self.reshaping is not None and self.reshaping.due(1.0):
            self._remove_channels(self.reshaping)
        self.average.apply()
        yield self._event("training", pending)

    def end_warmup(self) -> None:
        """End the warm-up before all of its rounds are done; a plan measures only some of them."""
        self.warmup_ended = True

    def round(self, progress: float) -> Terms:
        """Renew the images and return what to log; the student is frozen meanwhile."""
        self.round_at = self.step
        with self.stopwatch.measure("synthesis"), frozen(self.setting.student):
            return self.method.source.round(progress)

    def student_step(self, progress: float) -> Terms:
        """Train the student on one batch and return the terms and further values to log."""
        learned = self._learned(progress)
        if self.reshaping is not None:
            self._reshape(self.reshaping, learned)  # which can make a new optimizer
        share = self.rate_scale * cosine(learned, 1.0) * ramp(learned, self.config.lr_warmup)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = share * peak
        with self.stopwatch.measure("distillation"):
            batch = self.method.source.sample()
            self.trained.train()
            terms, per_image = self.accumulation.backward(batch, lambda part: self._loss(part, learned))
            self.optimizer.step()
            self.step += 1
            self.average.update(self.step)
            return terms | self.method.loss.after_step(batch, per_image)

    def _loss(self, part: Batch, learned: float) -> StudentTerms:
        computed = self.method.loss.compute(part, learned)
        if self.hints is None:
            return computed
        return computed._replace(terms=computed.terms | self.hints(*self.setting.take_recorded(), learned))

    def _reshape(self, reshaping: Reshaping, learned: float) -> None:
        if reshaping.due(learned):
            self._remove_channels(reshaping)
        reshaping.fade(learned)

    def _remove_channels(self, reshaping: Reshaping) -> None:
        """Remove channels from the student, from the optimizer's state and from the average."""
        before, state = dict(self.trained.named_parameters()), self.optimizer.state
        averaged = self.average.named()
        reshaping.remove()
        batches = math.ceil(reshaping.images_to_refit() / self.config.batch_size)
        reshaping.refit([self.method.source.sample().images for _ in range(batches)])
        self._follow_shape()
        self.accumulation.optimizer = self.optimizer
        if not batches:  # otherwise the average begins anew with the fitted weights
            self.average.set_named(reshaping.narrowed(averaged))
        prefix = f"{STUDENT}."
        for name, parameter in self.trained.named_parameters():
            if not name.startswith(prefix) and parameter is not before[name]:
                continue  # made anew
            for entry, value in state.get(before[name], {}).items():
                shaped = isinstance(value, Tensor) and value.shape == before[name].shape
                if shaped and name.startswith(prefix):
                    own = name.removeprefix(prefix)
                    value = reshaping.narrowed({own: value})[own]
                self.optimizer.state[parameter][entry] = value

    def _follow_shape(self) -> None:
        """Make modules, optimizer and average of the student's present tensors, which are equal in all processes."""
        self.method.loss.follow_student()
        self.trained = nn.ModuleList([self.setting.student, *self.method.loss.modules()])
        self.setting.runtime.place(self.setting.student)
        self.world.equalise(self.trained)
        if self.config.sync_batchnorm:
            synchronise(self.trained, self.world)
        self.optimizer = make_optimizer(self.trained, self.optimizer_kind, self.config, fine_tuning=self._fine_tunes)
        self.average = WeightAverage(self.setting.student, self.config.average)

    @property
    def _fine_tunes(self) -> bool:
        """Whether the student begins as the teacher, or learns its stages with a term far larger than the method's."""
        return self.reshaping is not None or bool(self.setting.compared)

    def _learned(self, progress: float) -> float:
        """Return the share of the student's steps that is done; `progress` also covers the warm-up in a budget."""
        if self.begun_at is None:
            self.begun_at = progress
        # A resumed run with another estimate of its end can be before its beginning.
        return max(progress - self.begun_at, 0.0) / (1.0 - self.begun_at)

    def _event(self, phase: Literal["warm-up", "training"], pending: Means) -> Event:
        metrics = pending.take(self.world)
        self._check_finite(metrics)
        metrics |= {f"images/{name}": float(count) for name, count in self.method.source.counts()._asdict().items()}
        done = self.clock.progress(self.step)
        return Event(phase, self.step, done, self.step * self.config.batch_size, metrics)

    def _check_finite(self, metrics: dict[str, float | list[float]]) -> None:
        """Raise DivergedError for losses or weights that are not finite: the last step is followed by no loss."""
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
        weights = [value for value in self.trained.state_dict().values() if value.is_floating_point()]
        numbers["size of the weights"] = float(nn.utils.get_total_norm(weights))
        if all(map(math.isfinite, numbers.values())):
            return
        seen = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
        rates = learning_rates(self.optimizer_kind, fine_tuning=self._fine_tunes)
        raise DivergedError(f"the loss is not finite near step {self.step} ({seen}); lower {rates} or a loss weight")

    def notes(self) -> list[str]:
        """Return sentences for the user about this run."""
        notes = (*self.method.notes(), *self.setting.runtime.notes, *self.remarks)
        in_parts = (*self.method.source.remarks(), *self.accumulation.parts.note("every batch is computed"))
        return list(dict.fromkeys(notes + in_parts))  # a restored run can repeat earlier notes

    def peak_bytes(self) -> int:
        """Return the peak memory of this run, earlier processes of it included."""
        return max(self.earlier_peak_bytes, peak_memory_bytes(self.setting.runtime.device))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs besides the teacher and the recipe."""
        state = {
            "reshaping": None if self.reshaping is None else self.reshaping.state_dict(),
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "method": self.method.state_dict(),
            "clock": self.clock.state_dict(),
            "step": self.step,
            "round_at": self.round_at,
            "begun_at": self.begun_at,
            "rate_scale": self.rate_scale,
            "parts": self.accumulation.parts.count,
            "remarks": list(self.remarks),
            "seconds": self.stopwatch.totals(),
            "peak_bytes": self.peak_bytes(),
            "random": random_streams(self.setting.rng),
        }
        others = self.world.collect({name: state[name] for name in OWN})
        return state | ({"others": others} if others else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, for the same teacher, recipe and seed."""
        state = own_share(state, self.method.source, self.setting.rng, self.world)
        if self.reshaping is not None:
            self.reshaping.load_state_dict(state["reshaping"])
            self._follow_shape()
            self.accumulation.optimizer = self.optimizer
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.method.load_state_dict(state["method"])
        self.clock.load_state_dict(state["clock"])
        self.step, self.round_at, self.begun_at = state["step"], state["round_at"], state["begun_at"]
        self.rate_scale, self.accumulation.parts.count = state["rate_scale"], state["parts"]
        self.remarks, self.earlier_peak_bytes = list(state["remarks"]), state["peak_bytes"]
        self.stopwatch.load(state["seconds"])
        set_random_streams(self.setting.rng, state["random"])
