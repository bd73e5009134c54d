"""A convolutional generator for images of 8 to 224 pixels and any number of channels."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.synthesis.class_modulation import ClassModulation, Conditioning

SMALLEST_WIDTH = 16  # channels; narrower convolutions do not fill vector instructions


class Generator(nn.Module):
    """Noise [B, noise_size], and labels [B] when conditional -> images [B, C, H, W] in [0, 1].

    FastDFKD's generator (arXiv:2112.15278) with two convolutions per doubling of the resolution. The image size
    determines the number of doublings: 2 from 8x8 at 32 pixels, 5 from 7x7 at 224. The last layer is a BatchNorm
    without weights, as in DAFL (arXiv:1904.01186). With the sigmoid after it, every batch has about the mean and the
    standard deviation of the teacher's normalisation.

    `conditioning` is how a conditional generator receives the class: "concat" concatenates an embedding of it with the
    noise; "product" multiplies the two, as in arXiv:2003.03603; "batchnorm" adds a gain and a shift per class to the
    last BatchNorm of every block; "product_batchnorm" does both.
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
        # Per unit, not per channel: otherwise each position would have its own mean, equal in all images.
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
        """Return images [B, C, H, W] in [0, 1] as float32. A conditional generator requires `labels` [B]."""
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
    """Return centre and slope, each [C, 1, 1], of the sigmoid from unit variance to the teacher's mean and std.

    The sigmoid's derivative at the centre is mean * (1 - mean), hence the division. Normalisations that are no
    statistics of images, such as mean 0 and std 1, are clamped to the range of images.
    """
    mean = torch.tensor(spec.mean).clamp(0.05, 0.95).view(-1, 1, 1)
    std = torch.tensor(spec.std).clamp(0.05, 0.35).view(-1, 1, 1)
    return torch.logit(mean), std / (mean * (1.0 - mean))


class _UpBlock(nn.Module):
    """Doubled resolution, then two convolutions with BatchNorm; with one convolution, shapes vary less between images.

    Convolutions pad by reflection, because zero padding leads to a dark frame around every image.
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
