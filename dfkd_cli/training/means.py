"""Means of logged values, without a transfer from the device at every step."""

from itertools import islice

import torch

from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.training.setting import Terms


class Means:
    """Sums on the device, which are read only by `take`."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.added = 0  # steps and rounds

    def add(self, terms: Terms) -> None:
        """Add the values of one step or round."""
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach()
            self.counts[name] = self.counts.get(name, 0) + 1
        self.added += 1

    def take(self, world: World = ALONE) -> dict[str, float | list[float]]:
        """Return the means since the last call, over all processes, and reset the sums. Waits for the device."""
        means = world.means([value / self.counts[name] for name, value in self.sums.items()]) if self.sums else []
        numbers = iter(torch.cat([value.reshape(-1) for value in means]).tolist() if means else ())  # one transfer
        metrics: dict[str, float | list[float]] = {}
        for name, value in zip(self.sums, means, strict=True):
            metrics[name] = next(numbers) if value.dim() == 0 else list(islice(numbers, value.numel()))
        self._clear()
        return metrics
