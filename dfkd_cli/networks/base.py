"""Interface of every network body: logits, and the intermediate tensors of a forward."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class NormStatistics(NamedTuple):
    """Running mean and variance of one BatchNorm layer, each [C]."""

    mean: Tensor
    var: Tensor


class Outputs(NamedTuple):
    """Results of one observed forward of B images."""

    logits: Tensor  # [B, K], or [B, K, h, w] with one answer per pixel
    norm_inputs: tuple[Tensor, ...]  # per BatchNorm call, in order: [B, C, ...]; pairs with Network.norm_statistics
    embedding: Tensor | None  # input of the last linear layer: [B, D]; None without one, and with one answer per pixel
    stages: tuple[Tensor, ...]  # the last feature map of each resolution, large to small: [B, C, H, W]


class Network(nn.Module, ABC):
    """A frozen or trainable body: normalised images [B, C, H, W] -> logits [B, K] or [B, K, h, w].

    Attributes:
        batch_size: The only batch size that the program inside accepts, or None when it accepts any. `forward` and
            `observe` accept every batch size in both cases: they split a batch and pad its last piece.
        notes: Remarks about this network for the user, one sentence each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batch_size: int | None = None
        self.notes: list[str] = []

    def make_compilable(self, batch_size: int) -> str | None:
        """Prepare forwards of `batch_size` images, on the current device, for torch.compile.

        Returns None on success, else the reason why torch.compile cannot trace the network.
        """
        return None

    @property
    def compilable(self) -> bool:
        """Whether torch.compile can trace the network."""
        return True

    @property
    @abstractmethod
    def norm_statistics(self) -> tuple[NormStatistics, ...]:
        """Running statistics per BatchNorm call of a forward, in the order of the calls; empty without BatchNorm."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of normalised images [B, C, H, W]: [B, K], or [B, K, h, w] with one answer per pixel."""

    @abstractmethod
    def observe(self, inputs: Tensor) -> Outputs:
        """Return the `Outputs` of the same forward; gradients flow from each of them to the inputs."""
