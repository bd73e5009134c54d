"""The interface every network body offers: logits, and what its layers saw on the way to them."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class NormStatistics(NamedTuple):
    """What one BatchNorm layer remembers of the training data: running mean and variance, each [C]."""

    mean: Tensor
    var: Tensor


class Outputs(NamedTuple):
    """One observed forward of a batch of B images."""

    logits: Tensor  # [B, K]
    norm_inputs: tuple[Tensor, ...]  # per BatchNorm call, in order: [B, C, ...]; pairs with Network.norm_statistics
    embedding: Tensor | None  # what the last linear layer receives: [B, D]; None when there is no such layer
    stages: tuple[Tensor, ...]  # the last feature map of each resolution, large to small: [B, C, H, W]


class Network(nn.Module, ABC):
    """A frozen or trainable body: normalised images [B, C, H, W] -> logits [B, K]."""

    def make_compilable(self, batch_size: int) -> str | None:
        """Lets torch.compile see into forwards of this many images, on the device of now; why it cannot, if so."""
        return None

    @property
    def compilable(self) -> bool:
        """Whether torch.compile can see inside."""
        return True

    @property
    @abstractmethod
    def norm_statistics(self) -> tuple[NormStatistics, ...]:
        """One entry per BatchNorm call of a forward, in the order of the calls; empty without BatchNorm."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [B, K] of normalised images [B, C, H, W]."""

    @abstractmethod
    def observe(self, inputs: Tensor) -> Outputs:
        """The same forward, with everything in `Outputs`; gradients flow through all of it to the inputs."""
