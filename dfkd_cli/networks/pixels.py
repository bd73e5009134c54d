"""Quantities of pixels as quantities of images, and sizes of parts of images."""

from collections.abc import Sequence

from torch import Tensor

_MULTIPLE = 32  # pixels; the strides of usual networks divide it


def share_of_sides(sides: Sequence[int], share: float) -> list[int]:
    """Return this share of each side, in multiples of 32 pixels, at least 32 and at most the side."""
    return [min(side, max(_MULTIPLE, round(share * side / _MULTIPLE) * _MULTIPLE)) for side in sides]


def per_image(values: Tensor) -> Tensor:
    """Return the mean over an image's pixels: [B, H, W] -> [B]; [B] stays as it is."""
    return values if values.ndim == 1 else values.flatten(1).mean(dim=1)


def as_rows(logits: Tensor) -> Tensor:
    """Return one row per answer: [B, K, H, W] -> [B * H * W, K]; [B, K] stays as it is."""
    return logits if logits.ndim == 2 else logits.movedim(1, -1).flatten(0, -2)
