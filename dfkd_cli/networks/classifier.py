"""A classifier as the whole project sees it: images in [0, 1] in, logits out, normalisation inside."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dfkd_cli.networks import Network, NormStatistics, Outputs
from dfkd_cli.networks.returned import Returned, to_logits


@dataclass(frozen=True)
class InputSpec:
    """What a network eats and how many classes it tells apart."""

    size: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    num_classes: int


@dataclass(frozen=True)
class Origin:
    """Where a classifier came from, for logs and reports."""

    source: str  # what the user typed
    kind: str  # "timm", "hub folder", "state dict", "TorchScript", "exported program", "dfkd student"
    arch: str | None  # a name timm.create_model knows, when there is one
    sha256: str | None  # of the weights file; None when the weights did not come from one file
    found: dict[str, str] = field(default_factory=dict)  # value -> where it came from, e.g. {"mean": "--mean"}
    notes: tuple[str, ...] = ()  # what the user should know, one sentence each


class Classifier(nn.Module):
    """A network behind its own normalisation. All images in this project are floats in [0, 1], [B, C, H, W]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, spec: InputSpec, origin: Origin, returned: Returned = "logits"):
        """`returned` is what the network's own outputs are; a classifier's are logits always."""
        super().__init__()
        self.returned: Returned = returned
        self.network = network
        self.spec = spec
        self.origin = origin
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

    @property
    def norm_statistics(self) -> tuple[NormStatistics, ...]:
        """Running statistics of the BatchNorm layers, in the order of their calls."""
        return self.network.norm_statistics

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K] of images [B, C, H, W] in [0, 1]."""
        return to_logits(self.network((images - self.mean) / self.std), self.returned)

    def observe(self, images: Tensor) -> Outputs:
        """Logits with BatchNorm inputs, embedding and stage features, of images [B, C, H, W] in [0, 1]."""
        seen = self.network.observe((images - self.mean) / self.std)
        return seen._replace(logits=to_logits(seen.logits, self.returned))

    def parameter_count(self) -> int:
        """Number of trained values: parameters, without running statistics."""
        return sum(parameter.numel() for parameter in self.parameters())
