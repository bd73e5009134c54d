"""Colour images with 16 bits per channel, of which Pillow keeps the higher 8."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

_OTHER_BYTE = {"B": "L", "L": "B", "N": "B"}  # byte order in which Pillow's decoder keeps the lower 8 bits instead
_GREY_ALPHA = "LA;16B"


def deep_rawmode(image: Image.Image) -> str | None:
    """Return Pillow's name of the pixel layout of an image with 16 bits per channel, before it is loaded; else None."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    layout = _layout(tiles[0].args) if tiles else ""
    return layout if layout == _GREY_ALPHA or layout.startswith(("RGB;16", "RGBA;16")) else None


def sixteen_bits(path: Path | str, layout: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the colours as uint16 [H, W, C] and the higher bytes of alpha as uint8 [H, W, 1], None without it.

    `layout` is the result of `deep_rawmode`.
    """
    if layout == _GREY_ALPHA:
        pairs = _decoded(path, layout, "RGBA").astype(np.uint16)  # the four bytes of a pixel as they are
        return pairs[..., :1] * 256 + pairs[..., 1:2], pairs[..., 2:3].astype(np.uint8)
    high = _decoded(path, layout, layout).astype(np.uint16)
    low = _decoded(path, layout, layout[:-1] + _OTHER_BYTE[layout[-1]])
    values = high * 256 + low
    return values[..., :3], high[..., 3:].astype(np.uint8) if values.shape[2] == 4 else None


def _decoded(path: Path | str, layout: str, wanted: str) -> np.ndarray:
    with Image.open(path) as image:
        image.tile = [tile._replace(args=_replaced(tile.args, layout, wanted)) for tile in image.tile]
        image.load()
        return np.asarray(image)


def _layout(arguments: object) -> str:
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _replaced(arguments: object, layout: str, wanted: str) -> object:
    if isinstance(arguments, tuple):
        return tuple(wanted if argument == layout else argument for argument in arguments)
    return wanted if arguments == layout else arguments
