"""How fast a run will go: the real loop, for a few rounds, with a clock that stands still."""

import time
from dataclasses import dataclass, replace
from statistics import median

from dfkd_cli.compression.compress import begin
from dfkd_cli.compression.job import Parts
from dfkd_cli.machine.peak_memory import peak_memory_bytes
from dfkd_cli.training.method import WarmupPlan
from dfkd_cli.training.clock import Clock

HALFWAY = 0.5  # of the training: what a method turns on at some moment is on by then
LATE = 0.999  # where the images of every method have had their time
REFRESH_EVERY = 2  # student steps between renewals while measuring, so that there are renewals to measure
WARMING = 4  # laps that compilers and caches have for themselves: two of every kind
ENOUGH_S, FEWEST, MOST = 6.0, 4, 40  # of measured laps


@dataclass(frozen=True)
class Pace:
    """What the parts of a run take: seconds of wall clock, bytes of peak memory."""

    start_s: float  # once: building, compiling and whatever else only the first steps cost
    filling: WarmupPlan  # renewals before the first student step
    filling_s: float  # one of them
    refresh_s: float  # one renewal between student steps
    step_s: float  # one student step
    peak_bytes: int
    laps: int  # that were measured


class _StandingClock(Clock):
    """Progress that somebody else sets."""

    value = 0.0

    def progress(self, step: int) -> float:
        return self.value

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        pass


@dataclass(frozen=True)
class _Lap:
    """Seconds of one round of the loop and of its two parts."""

    filling: bool
    total: float
    refresh: float  # 0 in a round without a renewal
    step: float


class _Testbed:
    """A run of the recipe that is stopped after every round."""

    def __init__(self, parts: Parts, seed: int):
        train = replace(parts.recipe.train, report_every=1, round_every=REFRESH_EVERY)
        self.clock = _StandingClock()
        self.run = begin(replace(parts, recipe=replace(parts.recipe, train=train)), self.clock, seed)
        self.events = self.run.events()

    def until_ready(self) -> list[_Lap]:
        """Rounds to the middle of the training, where a method makes do with what it has, or to where it must."""
        self.clock.value, laps = HALFWAY, []
        while not (self.run.warmup_ended or self.run.method.source.ready(self.clock.value)):
            laps.append(self._lap())
            self.clock.value = LATE
            if len(laps) == MOST:
                # Images enough to time a student step are there, and this method belongs to nobody else.
                self.run.end_warmup()
        return laps

    def laps(self) -> tuple[list[_Lap], list[_Lap]]:
        """Rounds to warm up, and then enough rounds to measure; fewer when the filling ends before."""
        warming, measured, started = [], [], time.monotonic()
        filling = self.clock.value == 0.0
        while len(measured) < MOST and (len(measured) < FEWEST or time.monotonic() - started < ENOUGH_S):
            lap = self._lap()
            (warming if len(warming) < WARMING else measured).append(lap)
            if filling and not lap.filling:
                break
        return warming, measured

    def _lap(self) -> _Lap:
        before, started = self.run.stopwatch.totals(), time.monotonic()
        event = next(self.events)
        total, after = time.monotonic() - started, self.run.stopwatch.totals()
        refresh, step = (after.get(part, 0.0) - before.get(part, 0.0) for part in ("synthesis", "distillation"))
        return _Lap(event.phase == "warm-up", total, refresh, step)


def measure_pace(parts: Parts, seed: int) -> Pace:
    """Trains `parts.student` for some rounds of its recipe; what it has learned then is worth nothing."""
    started = time.monotonic()
    bed = _Testbed(parts, seed)
    method, device, built_s = bed.run.method, parts.runtime.device, time.monotonic() - started
    filling, between, training = bed.laps(), bed.until_ready(), bed.laps()
    filling_s = _median([lap.refresh for lap in filling[1] or filling[0] if lap.filling])
    refresh_s = _median([lap.refresh for lap in training[1] if lap.refresh])
    step_s = _median([lap.step for lap in training[1]])
    laps = [lap for part in (*filling, between, *training) for lap in part]
    usual = sum(filling_s if lap.filling else step_s + (refresh_s if lap.refresh else 0.0) for lap in laps)
    return Pace(
        start_s=built_s + max(0.0, sum(lap.total for lap in laps) - usual),
        filling=method.source.warmup(),
        filling_s=filling_s,
        refresh_s=refresh_s,
        step_s=step_s,
        # What is reserved for images to come: a CPU gives memory out only when it is used.
        peak_bytes=peak_memory_bytes(device) + (method.source.reserved_bytes() if device.type == "cpu" else 0),
        laps=len(laps),
    )


def _median(seconds: list[float]) -> float:
    return median(seconds) if seconds else 0.0
