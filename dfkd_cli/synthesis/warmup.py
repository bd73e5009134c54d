"""The warm-up: the rounds of a generator before the first student step."""

from dataclasses import dataclass
from typing import Any

from dfkd_cli.config.values import require, require_share
from dfkd_cli.training.method import WarmupPlan
from dfkd_cli.training.schedules import end_of_share


@dataclass(frozen=True)
class WarmupConfig:
    """How long a generator trains before the student."""

    rounds: int  # before the first student step
    share: float  # largest share of a budget that they take, not counting the first one

    def __post_init__(self) -> None:
        require(self, 0, "rounds")
        require_share(self, "share")


class Warmup:
    """Counts rounds and decides when the warm-up is over; `at_least` rounds fill a memory."""

    def __init__(self, config: WarmupConfig, at_least: int = 1):
        self.plan = WarmupPlan(max(config.rounds, at_least, 1), config.share)
        self.rounds = 0
        self.first_done = 0.0  # progress after the first round, in which everything is compiled

    def over(self, progress: float) -> bool:
        """Return whether all rounds are done or their share of the budget is used up.

        The first round does not count towards the share unless it takes longer than the share. Part of a budget is
        always left for the student.
        """
        share = self.plan.share
        begin = min(progress if self.rounds == 1 else self.first_done, share)
        late = self.rounds > 0 and progress >= end_of_share(begin, share)
        return late or self.rounds >= self.plan.rounds

    def count(self, progress: float) -> None:
        """Count a round that began at this progress."""
        if self.rounds == 1:
            self.first_done = progress
        self.rounds += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {"rounds": self.rounds, "first_done": self.first_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.rounds, self.first_done = state["rounds"], state["first_done"]
