"""A convolutional generator that fits any image size from 8 to 224 pixels and any number of channels and classes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_WIDTH = 16  # channels; below this a convolution no longer fills the machine's vectors


class Generator(nn.Module):
    """Noise [B, noise_size] and labels [B] -> images [B, C, H, W] in [0, 1].

    The layout of FastDFKD's generator (arXiv:2112.15278) with as many doublings as the image size asks for: 2 from 8x8
    at 32 pixels, 5 from 7x7 at 224. The label enters as an embedding beside the noise.
    """

    def __init__(self, size: tuple[int, int, int], num_classes: int, noise_size: int = 128, width: int = 48):
        super().__init__()
        channels, height, width_px = size
        self.size = size
        doublings = max(1, round(math.log2(max(height, width_px) / 8)))
        widths = [max(SMALLEST_WIDTH, 2 * width // 2 ** max(level - 1, 0)) for level in range(doublings + 1)]
        self.base = (widths[0], math.ceil(height / 2**doublings), math.ceil(width_px / 2**doublings))
        self.label_embedding = nn.Embedding(num_classes, noise_size)
        self.project = nn.Linear(2 * noise_size, math.prod(self.base))
        self.project_norm = nn.BatchNorm2d(widths[0])
        self.blocks = nn.ModuleList(_UpBlock(before, after) for before, after in zip(widths, widths[1:], strict=False))
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1], float32."""
        code = torch.cat([noise, self.label_embedding(labels)], dim=1)
        features = self.project_norm(self.project(code).view(-1, *self.base))
        for block in self.blocks:
            features = block(features)
        _, height, width = self.size
        return torch.sigmoid(self.to_image(features).float())[:, :, :height, :width]


class _UpBlock(nn.Module):
    """Twice the resolution, then convolution, BatchNorm and LeakyReLU."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, features: Tensor) -> Tensor:
        features = F.interpolate(features, scale_factor=2.0, mode="nearest")
        return F.leaky_relu(self.norm(self.conv(features)), 0.2)
