"""The student's weights averaged over its latest steps: what a run ends with, instead of where its last step fell."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """A moving average of a module's weights and BatchNorm statistics that looks back over a share of the steps so far.

    After t steps a new state has the weight 1 / max(1, share * t): short and long runs are averaged alike. With a
    share of 0 the average is the last state.
    """

    def __init__(self, module: nn.Module, share: float):
        self.share = share
        self.averaged = [value for value in module.state_dict().values() if value.is_floating_point()]
        self.means = [value.clone() for value in self.averaged]

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Takes in the module as it is after so many steps."""
        if self.share:
            weight = 1.0 / max(1.0, self.share * steps)
            torch._foreach_lerp_(self.means, self.averaged, weight)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def apply(self) -> None:
        """Gives the module its averaged weights."""
        if self.share:
            _copy(self.means, self.averaged)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module has its averaged weights; afterwards those that it had before."""
        held = [value.clone() for value in self.averaged]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                _copy(held, self.averaged)

    def state_dict(self) -> dict[str, Any]:
        """The average so far."""
        return {"means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        _copy(state["means"], self.means)


def _copy(values: list[Tensor], into: list[Tensor]) -> None:
    for value, place in zip(values, into, strict=True):
        place.copy_(value)
