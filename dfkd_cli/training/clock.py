"""Progress of a run, by the number of steps or by the time of a budget."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from dfkd_cli.machine.world.world import World


class Clock(ABC):
    """Measures the progress of a run in [0, 1]. Schedules are functions of it, and the run ends at 1."""

    @abstractmethod
    def progress(self, step: int) -> float:
        """Return the share of the training done before this step, in [0, 1]."""

    @abstractmethod
    def state_dict(self) -> dict[str, float]:
        """Return everything that a resumed run needs."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore what `state_dict` returned."""


class StepClock(Clock):
    """A run of a fixed number of steps."""

    def __init__(self, steps: int):
        self.steps = steps

    def progress(self, step: int) -> float:
        return min(step / self.steps, 1.0)

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        pass


class BudgetClock(Clock):
    """A run of a fixed time. Schedules follow the measured time, so that the run ends on time on every machine."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic):
        self.seconds = seconds
        self.now = now
        self.start = now()

    def progress(self, step: int) -> float:
        return min((self.now() - self.start) / self.seconds, 1.0)

    def state_dict(self) -> dict[str, float]:
        return {"used": self.now() - self.start}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.start = self.now() - state["used"]


class _SharedClock(Clock):
    """The clock of the first process, which all follow."""

    def __init__(self, clock: Clock, world: World):
        self.clock, self.world = clock, world

    def progress(self, step: int) -> float:
        return self.world.of_first(self.clock.progress(step))

    def state_dict(self) -> dict[str, float]:
        return self.clock.state_dict()

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.clock.load_state_dict(state)


def shared_clock(clock: Clock, world: World) -> Clock:
    """Return the clock, or for several processes one that is the same in all of them."""
    return _SharedClock(clock, world) if world.several and not isinstance(clock, StepClock) else clock
