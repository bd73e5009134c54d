"""`dfkd` with a clock that counts tensor operations, so that a second means the same on every machine."""

import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dfkd_cli.cli import main

SECONDS_PER_OPERATION = 1e-3
SECONDS_PER_NUMBER = 2e-8  # of an operation's result


class OperationClock(TorchDispatchMode):
    """Runs every operation and advances the time by its cost."""

    def __init__(self):
        super().__init__()
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        numbers = result.numel() if isinstance(result, torch.Tensor) else 0
        if isinstance(numbers, int):  # torch.export traces with sizes that are symbols
            self.seconds += SECONDS_PER_OPERATION + SECONDS_PER_NUMBER * numbers
        return result


def main_by_operations() -> None:
    """Run the command line with the clock replaced. For a separate process only."""
    run = threading.Thread.run

    def counted(self: threading.Thread) -> None:
        with clock:  # a mode belongs to one thread
            run(self)

    with OperationClock() as clock:
        threading.Thread.run = counted
        time.monotonic = time.perf_counter = clock.now
        main()
