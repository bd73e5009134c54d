"""Ctrl-C and SIGTERM: the first signal ends a run after the current step, the second one immediately."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from dfkd_cli.machine.world.launch import launched_place

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ANSWER = b"\nfinishing this step and saving a checkpoint; interrupt again to stop at once\n"


class Interruption:
    """A context in which the first signal sets `requested` and the second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs ignore it
                    self._before[number] = signal.signal(number, self._answer)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if launched_place().rank == 0:
            os.write(2, ANSWER)  # print() is not reentrant, and the signal may have interrupted one
