"""Predicted classes as colours, and strips of images beside each other."""

from collections.abc import Sequence

import torch
from torch import Tensor

_BITS = 8


def colours(classes: Tensor) -> Tensor:
    """Return the colours of predicted classes: [N, H, W] -> [N, 3, H, W] in [0, 1]; negative classes are white.

    The colours are those of PASCAL VOC: the bits of the number, spread over the highest bits of red, green and blue.
    """
    numbers = torch.arange(256)
    palette = torch.zeros(256, 3, dtype=torch.long)
    for level in range(_BITS):
        for channel in range(3):
            palette[:, channel] |= ((numbers >> (3 * level + channel)) & 1) << (_BITS - 1 - level)
    found = palette.to(classes.device)[classes.clamp_min(0) % 256]
    found = torch.where((classes < 0).unsqueeze(-1), 255, found)
    return found.movedim(-1, 1).float() / 255.0


def strips(images: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """Return each image with its class maps on the right: [N, C, H, W], [N, H, W] each -> [N, 3, H, (1 + M) W]."""
    shown = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    return torch.cat([shown, *map(colours, maps)], dim=3)
