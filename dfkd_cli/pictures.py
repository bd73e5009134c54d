"""Picture files: which they are, and how one becomes the input of a network."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from dfkd_cli.errors import UsageError

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's, by the number of channels
DECODING_THREADS = min(8, os.cpu_count() or 1)


def is_picture(name: str) -> bool:
    """Whether a file of this name counts as a picture; hidden files do not."""
    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


def open_picture(path: Path | str, at_least: tuple[int, int] | None = None) -> Image.Image:
    """The decoded picture. With `at_least` (width, height) a JPEG may come shrunk, but not below that: much quicker.

    Raises UsageError naming the file when it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if at_least is not None:
                image.draft(None, at_least)
            image.load()
            return image
    except MemoryError:
        raise
    # Pillow's decoders raise whatever their parsing trips over: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"cannot read the picture {path}: {reason}") from error


def as_array(image: Image.Image, channels: int, height: int, width: int) -> np.ndarray:
    """The picture as uint8 [H, W, C]: resized until it covers height and width, then cropped in its centre."""
    image = _in_mode(image, MODES[channels])
    if image.size != (width, height):
        scale = max(width / image.width, height / image.height)
        enough = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        image = image.resize(enough, Image.Resampling.BILINEAR)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    return np.array(image).reshape(height, width, channels)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)
