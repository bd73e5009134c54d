"""What the loop says of its steps, without waiting for the device at each of them."""

import torch

from dfkd_cli.training.setting import Terms


class Means:
    """Means of what the steps return, summed on the device and read by the host only when an event is due."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.rounds = 0

    def add(self, terms: Terms) -> None:
        """Counts in what one step returned."""
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach()
            self.counts[name] = self.counts.get(name, 0) + 1
        self.rounds += 1

    def take(self) -> dict[str, float | list[float]]:
        """The mean of everything added since the last call. Waits for the device."""
        metrics: dict[str, float | list[float]] = {}
        for name, value in self.sums.items():
            metrics[name] = (value / self.counts[name]).tolist()
        self.__init__()
        return metrics
