"""Where the time of a run goes, without making the host wait for the device."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds per named part. On CUDA, events mark the parts on the device and are read only when asked for."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Adds the time spent inside to `part`."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            yield
            self.seconds[part] += time.perf_counter() - start
            return
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(self.device)
        begin.record(stream)
        yield
        end.record(stream)
        self.pending.append((part, begin, end))

    def totals(self) -> dict[str, float]:
        """Seconds of every part so far. Waits for the device."""
        for part, begin, end in self.pending:
            end.synchronize()
            self.seconds[part] += begin.elapsed_time(end) / 1000.0
        self.pending.clear()
        return dict(self.seconds)

    def load(self, seconds: dict[str, float]) -> None:
        """Goes on from what `totals` returned."""
        self.pending.clear()
        self.seconds = defaultdict(float, seconds)
