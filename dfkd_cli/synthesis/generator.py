"""A convolutional generator that fits any image size from 8 to 224 pixels and any number of channels."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.synthesis.class_modulation import ClassModulation, Conditioning

SMALLEST_WIDTH = 16  # channels; below this a convolution no longer fills the machine's vectors


class Generator(nn.Module):
    """Noise [B, noise_size], and labels [B] when conditional -> images [B, C, H, W] in [0, 1].

    FastDFKD's generator (arXiv:2112.15278) made two convolutions deep per doubling, with as many doublings as the
    image size asks for: 2 from 8x8 at 32 pixels, 5 from 7x7 at 224. As in DAFL (arXiv:1904.01186) a BatchNorm without
    weights comes last: it gives every batch the mean and contrast that the teacher's normalisation says its training
    images had.

    A conditional one hears of the class by `conditioning`: "concat" puts an embedding of it beside the noise; "product"
    multiplies the two, as arXiv:2003.03603 does, so that nothing is drawn without noise; "batchnorm" gives the
    last BatchNorm of every block a gain and a shift per class; "product_batchnorm" does both.
    """

    centre: Tensor
    slope: Tensor

    def __init__(
        self, spec: InputSpec, noise_size: int, width: int, conditional: bool, conditioning: Conditioning = "concat"
    ):
        super().__init__()
        channels, height, width_px = spec.size
        self.size = spec.size
        doublings = max(1, round(math.log2(max(height, width_px) / 8)))
        widths = [max(SMALLEST_WIDTH, 2 * width // 2 ** max(level - 1, 0)) for level in range(doublings + 1)]
        self.base = (widths[0], math.ceil(height / 2**doublings), math.ceil(width_px / 2**doublings))
        self.concatenates = conditional and conditioning == "concat"
        embeds = conditional and conditioning != "batchnorm"
        self.label_embedding = nn.Embedding(spec.num_classes, noise_size) if embeds else None
        self.project = nn.Linear(noise_size * (2 if self.concatenates else 1), math.prod(self.base))
        # Per unit, not per channel: no place of the map starts with a mean of its own, which all images would share.
        self.project_norm = nn.BatchNorm1d(math.prod(self.base), affine=False)
        self.blocks = nn.ModuleList(_UpBlock(before, after) for before, after in pairwise(widths))
        modulated = widths if conditional and "batchnorm" in conditioning else []
        self.modulations = nn.ModuleList(ClassModulation(size, spec.num_classes) for size in modulated)
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1, padding_mode="reflect")
        self.image_norm = nn.BatchNorm2d(channels, affine=False)
        centre, slope = _pixel_curve(spec)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("slope", slope, persistent=False)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W] in [0, 1], float32; labels exactly when the generator is conditional."""
        features = self.project_norm(self.project(self._labelled(noise, labels))).view(-1, *self.base)
        features = self._modulated(0, features, labels)
        for level, block in enumerate(self.blocks, start=1):
            features = F.leaky_relu(self._modulated(level, block(features), labels), 0.2)
        _, height, width = self.size
        pixels = self.image_norm(self.to_image(features).float()[:, :, :height, :width])
        return torch.sigmoid(self.centre + self.slope * pixels)

    def _labelled(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        if self.label_embedding is None:
            return noise
        embedding = self.label_embedding(labels)
        return torch.cat([noise, embedding], dim=1) if self.concatenates else noise * embedding

    def _modulated(self, level: int, features: Tensor, labels: Tensor | None) -> Tensor:
        return self.modulations[level](features, labels) if self.modulations else features


def _pixel_curve(spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Centre and slope, each [C, 1, 1], of the sigmoid that turns unit variance into the teacher's mean and std.

    Its slope at the centre is mean * (1 - mean), hence the division. Normalisations that say nothing about the images,
    such as mean 0 and std 1, are held within what images can have.
    """
    mean = torch.tensor(spec.mean).clamp(0.05, 0.95).view(-1, 1, 1)
    std = torch.tensor(spec.std).clamp(0.05, 0.35).view(-1, 1, 1)
    return torch.logit(mean), std / (mean * (1.0 - mean))


class _UpBlock(nn.Module):
    """Twice the resolution, then two convolutions with BatchNorm: with one, images differ less in shape.

    Reflected borders: padded with zeros, a generator draws a dark frame around every image.
    """

    def __init__(self, before: int, after: int):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, after, 3, padding=1, padding_mode="reflect", bias=False) for channels in (before, after)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _ in self.convs)

    def forward(self, features: Tensor) -> Tensor:
        features = F.interpolate(features, scale_factor=2.0, mode="nearest")
        features = F.leaky_relu(self.norms[0](self.convs[0](features)), 0.2)
        return self.norms[1](self.convs[1](features))
