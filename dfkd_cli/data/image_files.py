"""Picture files: which they are, and how one becomes the input of a network."""

import os
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from dfkd_cli.errors import UsageError, first_line

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's, by the number of channels
DECODING_THREADS = min(8, os.cpu_count() or 1)


@cache
def suffixes() -> tuple[str, ...]:
    """How the names of pictures end, in small letters."""
    from torchvision.datasets.folder import IMG_EXTENSIONS  # seconds, which checking a recipe does not need

    return IMG_EXTENSIONS


def is_picture(name: str) -> bool:
    """Whether a file of this name counts as a picture; hidden files do not."""
    return name.lower().endswith(suffixes()) and not name.startswith(".")


def around(folder: Path) -> set[str]:
    """The real places of `folder` and of all folders that it lies in: what `is_new` knows to begin with."""
    place = os.path.realpath(folder)
    return {place, *map(str, Path(place).parents)}


def is_new(folder: Path | str, known: set[str]) -> bool:
    """Whether the real place of `folder` is not among the known ones, which it joins: so links lead nowhere twice."""
    place = os.path.realpath(folder)
    new = place not in known
    known.add(place)
    return new


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
        raise UsageError(f"cannot read the picture {path}: {first_line(error)}") from error


def as_array(image: Image.Image, channels: int, height: int, width: int) -> np.ndarray:
    """The picture as uint8 [H, W, C]: resized until it covers height and width, then cropped in its centre.

    Raises UsageError for colours that Pillow cannot convert.
    """
    image = _in_mode(image, MODES[channels])
    if image.size != (width, height):
        # Cropped while it is resized: all of a strip one pixel wide, made wide enough, would fill the memory.
        box = [
            *_covering(image.width, width, image.height, height),
            *_covering(image.height, height, image.width, width),
        ]
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=(box[0], box[2], box[1], box[3]))
    return np.array(image).reshape(height, width, channels)


def _covering(length: int, wanted: int, other_length: int, other_wanted: int) -> tuple[float, float]:
    """Begin and end, in the picture's own pixels, of its middle that becomes `wanted` pixels of this side."""
    resized = max(wanted, round(length * max(wanted / length, other_wanted / other_length)))
    begin = (resized - wanted) // 2
    return begin * length / resized, min((begin + wanted) * length / resized, length)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    try:
        return image.convert(mode)
    except ValueError as error:
        raise UsageError(f"cannot read a picture in {image.mode} colours: {error}") from error
