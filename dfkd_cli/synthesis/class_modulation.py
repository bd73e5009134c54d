"""Class-conditional gains and shifts, which follow a BatchNorm layer."""

from typing import Literal

from torch import Tensor, nn

Conditioning = Literal["concat", "product", "batchnorm", "product_batchnorm"]


class ClassModulation(nn.Module):
    """A gain and a shift per channel and class. After a BatchNorm layer it is a class-conditional BatchNorm."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.gain = nn.Embedding(num_classes, channels)
        self.shift = nn.Embedding(num_classes, channels)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return modulated features for labels [B]: [B, C, H, W] -> the same shape. Initially the identity."""
        gain, shift = self.gain(labels)[:, :, None, None], self.shift(labels)[:, :, None, None]
        return features * (1.0 + gain) + shift
