"""A thread that ends this process soon after another one of the run has ended."""

import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Self

BEAT_S = 1.0  # between two signs of life
LOST_AFTER_S = 15.0  # without a sign of life of the next process
GRACE_S = 5.0  # for this process to notice by itself, and to end in order


class Watch:
    """Exchanges signs of life through the store of the process group while the block runs.

    Exchanges of gloo fail at once when a process has ended. Those of NCCL, and those with a machine that is cut off, do
    not. Each process watches the next one, so that the cost does not grow with their number.
    """

    def __init__(self, store: Any, rank: int, size: int, advice: str):
        self.store, self.rank, self.size, self.advice = store, rank, size, advice
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the watch: the others may end now."""
        self.ended.set()
        self.thread.join(2 * BEAT_S)

    def is_first_to_tell(self) -> bool:
        """Return whether no other process has told the user about a failure yet."""
        try:
            return self.store.add("failures told", 1) == 1
        except RuntimeError:  # the process that holds the store has ended
            return True

    def tell(self) -> None:
        """Make all processes end."""
        with suppress(RuntimeError):  # the process that holds the store has ended
            self.store.set("ended", "1")

    def _run(self) -> None:
        following, seen, seen_at, count = (self.rank + 1) % self.size, b"", time.monotonic(), 0
        try:
            while not self.ended.wait(BEAT_S):
                count += 1
                self.store.set(f"alive {self.rank}", str(count))
                if self.store.check([f"alive {following}"]):
                    latest = self.store.get(f"alive {following}")
                    seen, seen_at = latest, time.monotonic() if latest != seen else seen_at
                if time.monotonic() - seen_at > LOST_AFTER_S:
                    self.tell()
                if self.store.check(["ended"]):
                    break
        except RuntimeError:  # the process that holds the store has ended
            pass
        if not self.ended.wait(GRACE_S):
            if self.is_first_to_tell():
                line = f"error: another of the {self.size} processes has ended or cannot be reached; {self.advice}"
                print(line, file=sys.stderr, flush=True)
            os._exit(1)
