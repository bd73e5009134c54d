"""A moving average of the student's weights, which become the weights of the result."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """A moving average of a module's weights and BatchNorm statistics over the latest `share` of its steps.

    After t steps a new state has the weight 1 / max(1, share * t), so that the window grows with the run. A share of 0
    keeps the last state.
    """

    def __init__(self, module: nn.Module, share: float):
        self.share = share
        floats = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
        self.names, self.averaged = list(floats), list(floats.values())
        self.means = [value.clone() for value in self.averaged]

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Add the module's current state, after `steps` steps, to the average."""
        if self.share:
            weight = 1.0 / max(1.0, self.share * steps)
            torch._foreach_lerp_(self.means, self.averaged, weight)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def apply(self) -> None:
        """Copy the averaged weights into the module."""
        if self.share:
            _copy(self.means, self.averaged)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Return a context in which the module has its averaged weights."""
        held = [value.clone() for value in self.averaged]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                _copy(held, self.averaged)

    def named(self) -> dict[str, Tensor]:
        """Return the average by the names of the module's state dict."""
        return dict(zip(self.names, self.means, strict=True))

    def set_named(self, means: Mapping[str, Tensor]) -> None:
        """Replace the average by the values of these names."""
        _copy([means[name] for name in self.names], self.means)

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {"means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        _copy(state["means"], self.means)


def _copy(values: list[Tensor], into: list[Tensor]) -> None:
    for value, place in zip(values, into, strict=True):
        place.copy_(value)
