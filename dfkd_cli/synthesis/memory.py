"""What keeps generated images between a round and the student's steps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dfkd_cli.machine.world.world import World
from dfkd_cli.synthesis.generator_loss import Generated
from dfkd_cli.synthesis.trainer import GeneratorTrainer
from dfkd_cli.training.method import Batch
from dfkd_cli.training.setting import Terms


class Memory(ABC):
    """Images that a student learns from."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images that are kept."""

    @abstractmethod
    def add(self, generated: Generated) -> Terms:
        """Keep the last batch of a round and return what to log."""

    @abstractmethod
    def sample(self, count: int, rng: torch.Generator) -> Batch:
        """Return `count` images without augmentation."""

    @abstractmethod
    def spread(self, count: int) -> Tensor:
        """Return at most `count` kept images [n, C, H, W] in [0, 1], evenly over the memory."""

    def reserved_bytes(self) -> int:
        """Return the memory that is reserved for images to come."""
        return 0

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    @abstractmethod
    def reshared(self, states: Sequence[dict[str, Any]], world: World) -> dict[str, Any]:
        """Return the state for this process of a world of another size than the one in which the states were saved."""


class NoMemory(Memory):
    """Every sample is a new batch of the generator; only the latest one is at hand."""

    def __init__(self, trainer: GeneratorTrainer):
        self.trainer = trainer
        setting = trainer.setting
        self.latest = torch.zeros(0, *trainer.spec.size, device=setting.runtime.device)

    def __len__(self) -> int:
        return len(self.latest)

    def add(self, generated: Generated) -> Terms:
        """Keep nothing."""
        return {}

    def sample(self, count: int, rng: torch.Generator) -> Batch:
        """Return new images of the generator."""
        self.latest = self.trainer.sample(count)
        return Batch(self.latest)

    def spread(self, count: int) -> Tensor:
        """Return images of the latest sample."""
        return self.latest[:count]

    def state_dict(self) -> dict[str, Any]:
        """Return the latest images."""
        return {"latest": self.latest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.latest = state["latest"].to(self.latest.device)

    def reshared(self, states: Sequence[dict[str, Any]], world: World) -> dict[str, Any]:
        """Return the latest images of one process."""
        return states[world.rank % len(states)]
