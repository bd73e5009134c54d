"""Fits images to the input of a network, with the arithmetic of torchvision and timm."""

import math

import numpy as np
from PIL import Image

from dfkd_cli.networks.classifier import InputSpec

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's, by the number of channels
Sides = tuple[int, int]  # height, width
_LARGEST_SCALED = 64  # times the pixels of the input


def fitted(image: Image.Image, spec: InputSpec) -> np.ndarray:
    """Return the image, of mode L, LA, RGB or RGBA, as uint8 [H, W, C] in the size and by the preprocessing of `spec`.

    The result is that of timm's transform for evaluation.
    """
    channels, *wanted = spec.size
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    sides = (image.height, image.width)
    scaled = _scaled_sides(sides, (wanted[0], wanted[1]), spec)
    (top, rows), (left, columns) = (_visible(has, side) for has, side in zip(scaled, wanted, strict=True))
    kind = Image.Resampling[spec.preprocessing.interpolation.upper()]
    if scaled[0] * scaled[1] <= _LARGEST_SCALED * wanted[0] * wanted[1]:
        whole = image if scaled == sides else image.resize((scaled[1], scaled[0]), kind)
        image = whole.crop((left, top, left + columns, top + rows))
    else:  # scaled as a whole, a strip of one pixel would fill the memory; this way rounding can differ by one of 255
        x, y = sides[1] / scaled[1], sides[0] / scaled[0]
        right, bottom = min((left + columns) * x, sides[1]), min((top + rows) * y, sides[0])
        image = image.resize((columns, rows), kind, box=(left * x, top * y, right, bottom))
    return _padded(np.array(image).reshape(rows, columns, channels), (wanted[0], wanted[1]), spec.mean)


def _scaled_sides(sides: Sides, wanted: Sides, spec: InputSpec) -> Sides:
    """Return height and width of the whole image before it is cropped."""
    mode, share = spec.preprocessing.crop_mode, spec.preprocessing.crop_pct
    around = math.floor(wanted[0] / share), math.floor(wanted[1] / share)
    if mode == "squash":
        return around
    if mode == "center" and around[0] == around[1]:  # torchvision's Resize, which rounds down
        short = min(sides)
        return tuple(around[0] if side == short else int(around[0] * side / short) for side in sides)  # pyright: ignore[reportReturnType]
    ratios = sides[0] / around[0], sides[1] / around[1]
    ratio = max(ratios) if mode == "border" else min(ratios)
    return max(round(sides[0] / ratio), 1), max(round(sides[1] / ratio), 1)


def _visible(scaled: int, wanted: int) -> tuple[int, int]:
    """Return the first row or column of the scaled image that is visible in the result, and their number."""
    return (round((scaled - wanted) / 2.0), wanted) if scaled > wanted else (0, scaled)


def _padded(pixels: np.ndarray, wanted: Sides, mean: tuple[float, ...]) -> np.ndarray:
    """Return the pixels [h, w, C] in the middle of an image [H, W, C] of the colour `mean`."""
    rows, columns, channels = pixels.shape
    if (rows, columns) == wanted:
        return pixels
    whole = np.empty((*wanted, channels), np.uint8)
    whole[:] = np.rint(np.multiply(mean, 255)).clip(0, 255)
    top, left = (wanted[0] - rows) // 2, (wanted[1] - columns) // 2
    whole[top : top + rows, left : left + columns] = pixels
    return whole
