"""Times of the phases of a run, measured without waiting for the device."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Measures seconds per named phase. On CUDA, events on the device mark the phases; `totals` reads them."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Return a context whose duration is added to `phase`."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            yield
            self.seconds[phase] += time.perf_counter() - start
            return
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(self.device)
        begin.record(stream)
        yield
        end.record(stream)
        self.pending.append((phase, begin, end))

    def totals(self) -> dict[str, float]:
        """Return the seconds of every phase. Waits for the device."""
        for phase, begin, end in self.pending:
            end.synchronize()
            self.seconds[phase] += begin.elapsed_time(end) / 1000.0
        self.pending.clear()
        return dict(self.seconds)

    def load(self, seconds: dict[str, float]) -> None:
        """Replace the times by what `totals` returned."""
        self.pending.clear()
        self.seconds = defaultdict(float, seconds)
