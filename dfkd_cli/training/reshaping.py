"""The interface of what changes a student's shape during training."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


class Reshaping(ABC):
    """Removes channels from a student while it learns. The loop calls `due` and `fade` before every student step."""

    rate: float  # factor of the student's learning rates

    @abstractmethod
    def fade(self, learned: float) -> None:
        """Prepare the student for a step; `learned` is the share of its own training done, in [0, 1]."""

    @abstractmethod
    def due(self, learned: float) -> bool:
        """Return whether the channels have to be removed before this step."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the channels from the student, in place: its parameters are new tensors afterwards."""

    @abstractmethod
    def images_to_refit(self) -> int:
        """Return how many images `refit` learns from; 0 when it is switched off."""

    @abstractmethod
    def refit(self, batches: Sequence[Tensor]) -> None:
        """Repair what the removal broke, in place, on batches of images [B, C, H, W] in [0, 1]."""

    @abstractmethod
    def narrowed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors by the names of the whole student's state dict without the removed channels."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what decides the shape of the student."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give the student the shape of the state, in place."""
