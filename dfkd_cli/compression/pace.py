"""Measure how fast a run is: the real loop for some rounds and steps, with a clock that is set by hand."""

import time
from dataclasses import dataclass, replace
from statistics import median

from dfkd_cli.compression.distillation import make_distillation
from dfkd_cli.compression.job import LoadedJob
from dfkd_cli.machine.peak_memory import peak_memory_bytes
from dfkd_cli.training.clock import Clock
from dfkd_cli.training.method import WarmupPlan

HALFWAY = 0.5  # progress at which everything that a method turns on later is on
LATE = 0.999  # progress at which the warm-up of every method is over
ROUND_EVERY = 2  # student steps between two rounds while measuring, so that rounds are measured too
DISCARDED = 4  # laps for compilers and caches: two with a round and two without
ENOUGH_S, FEWEST, MOST = 6.0, 4, 40  # of measured laps
SLOW_LAP_S = 10.0  # from which on one lap of each kind is measured, because four of them take minutes


@dataclass(frozen=True)
class Pace:
    """Durations in seconds of wall clock, and peak memory in bytes."""

    start_s: float  # once: building, compilation, and whatever else only the first steps cost
    warmup: WarmupPlan
    warmup_round_s: float  # one round before the first student step
    round_s: float  # one round between student steps
    step_s: float  # one student step
    peak_bytes: int
    laps: int  # that were measured
    notes: tuple[str, ...]  # sentences of this run, such as that memory ran out


class _HandClock(Clock):
    """A clock whose progress is set from outside."""

    value = 0.0

    def progress(self, step: int) -> float:
        return self.value

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        pass


@dataclass(frozen=True)
class _Lap:
    """Seconds of one pass through the loop: a round, a student step, or both."""

    warmup: bool
    total: float
    round: float  # 0 without a round
    step: float  # 0 during the warm-up


class _Testbed:
    """A run of the recipe that yields after every pass through the loop."""

    def __init__(self, loaded: LoadedJob, seed: int):
        train = replace(loaded.recipe.train, report_every=1, round_every=ROUND_EVERY)
        self.clock = _HandClock()
        recipe = replace(loaded.recipe, train=train)
        self.distillation = make_distillation(replace(loaded, recipe=recipe), self.clock, seed)
        self.events = self.distillation.events()

    def laps(self) -> tuple[list[_Lap], list[_Lap]]:
        """Return laps to discard, and enough laps to measure; fewer when the warm-up ends before."""
        discarded, measured, started, slow = [], [], time.monotonic(), False
        warmup = self.clock.value == 0.0
        kinds = 1 if warmup else ROUND_EVERY  # of laps
        while len(measured) < MOST and (
            len(measured) < (kinds if slow else FEWEST) or time.monotonic() - started < ENOUGH_S
        ):
            lap = self._lap()
            (discarded if len(discarded) < (kinds if slow else DISCARDED) else measured).append(lap)
            slow = slow or lap.total > SLOW_LAP_S
            if warmup and not lap.warmup:
                break
        return discarded, measured

    def finish_warmup(self) -> list[_Lap]:
        """Return laps until student steps begin, at half of the progress or later if the method needs more images.

        After MOST laps, or a slow one, there are enough images to time a student step, and the warm-up is ended.
        """
        self.clock.value, laps = HALFWAY, []
        while not self.distillation.method.source.ready(self.clock.value):
            laps.append(self._lap())
            self.clock.value = LATE
            if len(laps) == MOST or laps[-1].total > SLOW_LAP_S:
                self.distillation.end_warmup()
                break
        return laps

    def _lap(self) -> _Lap:
        stopwatch = self.distillation.stopwatch
        before, started = stopwatch.totals(), time.monotonic()
        event = next(self.events)
        total, after = time.monotonic() - started, stopwatch.totals()
        round_s, step_s = (after.get(name, 0.0) - before.get(name, 0.0) for name in ("synthesis", "distillation"))
        return _Lap(event.phase == "warm-up", total, round_s, step_s)


def measure_pace(loaded: LoadedJob, seed: int) -> Pace:
    """Return the pace of the job. Trains `loaded.student`, which is of no use afterwards."""
    started = time.monotonic()
    bed = _Testbed(loaded, seed)
    source, device, built_s = bed.distillation.method.source, loaded.runtime.device, time.monotonic() - started
    warmup, between, training = bed.laps(), bed.finish_warmup(), bed.laps()
    warmup_round_s = _median([lap.round for lap in warmup[1] or warmup[0] if lap.warmup])
    round_s = _median([lap.round for lap in training[1] if lap.round])
    step_s = _median([lap.step for lap in training[1]])
    laps = [*warmup[0], *warmup[1], *between, *training[0], *training[1]]
    usual = sum(warmup_round_s if lap.warmup else step_s + (round_s if lap.round else 0.0) for lap in laps)
    return Pace(
        start_s=built_s + max(0.0, sum(lap.total for lap in laps) - usual),
        warmup=source.warmup(),
        warmup_round_s=warmup_round_s,
        round_s=round_s,
        step_s=step_s,
        # Memory that is reserved for images to come is not in the peak of a CPU, which provides it at the first use.
        peak_bytes=peak_memory_bytes(device) + (source.reserved_bytes() if device.type == "cpu" else 0),
        laps=len(laps),
        notes=tuple(bed.distillation.notes()),
    )


def _median(seconds: list[float]) -> float:
    """Return the median, 0 without values."""
    return median(seconds) if seconds else 0.0
