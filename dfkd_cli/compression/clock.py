"""The clock of a run: of a fixed number of steps, or of what a budget leaves for them."""

import time
from typing import Any

from dfkd_cli.compression.budget import training_seconds
from dfkd_cli.errors import UsageError
from dfkd_cli.training.clock import BudgetClock, Clock, StepClock
from dfkd_cli.training.config import TrainConfig


def make_clock(config: TrainConfig, started: float, teacher_pass_s: float, saved: dict[str, Any] | None) -> Clock:
    """Return the clock that decides when the training ends.

    `started` is the start of the run in `time.monotonic()`, without the time in which it was interrupted; `saved` is
    the checkpoint of a resumed run. Raises UsageError when the budget of a new run is used up.
    """
    if config.budget is None:
        return StepClock(config.steps)
    left = training_seconds(config.budget, time.monotonic() - started, teacher_pass_s)
    if saved is not None:
        return BudgetClock(saved["distillation"]["clock"]["used"] + max(left, 0.0))
    if left <= 0.0:
        raise UsageError(f"--budget of {config.budget:.0f} s is used up before the training starts; give more time")
    return BudgetClock(left)
