"""The class-conditional part of a class-conditional BatchNorm."""

from typing import Literal

from torch import Tensor, nn

Conditioning = Literal["concat", "product", "batchnorm", "product_batchnorm"]


class ClassModulation(nn.Module):
    """What makes the BatchNorm before it class-conditional: a gain and a shift of each channel for every class."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.gain = nn.Embedding(num_classes, channels)
        self.shift = nn.Embedding(num_classes, channels)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Features [B, C, H, W] as the classes [B] change them; at first not at all."""
        gain, shift = self.gain(labels)[:, :, None, None], self.shift(labels)[:, :, None, None]
        return features * (1.0 + gain) + shift
