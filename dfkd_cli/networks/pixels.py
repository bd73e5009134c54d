"""Quantities of pixels as quantities of images. Both functions are the identity for one answer per image."""

from torch import Tensor


def per_image(values: Tensor) -> Tensor:
    """Return the mean over an image's pixels: [B, H, W] -> [B]; [B] stays as it is."""
    return values if values.ndim == 1 else values.flatten(1).mean(dim=1)


def as_rows(logits: Tensor) -> Tensor:
    """Return one row per answer: [B, K, H, W] -> [B * H * W, K]; [B, K] stays as it is."""
    return logits if logits.ndim == 2 else logits.movedim(1, -1).flatten(0, -2)
