"""Image files: finding them, decoding them, and converting them to the input of a network."""

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
    """Return the lower-case suffixes of the names of image files."""
    from torchvision.datasets.folder import (
        IMG_EXTENSIONS,
    )  # takes seconds to import, and checking a recipe does not need it

    return IMG_EXTENSIONS


def is_image_file(name: str) -> bool:
    """Return whether a file of this name is an image file; hidden files are not."""
    return name.lower().endswith(suffixes()) and not name.startswith(".")


def enclosing_folders(folder: Path) -> set[str]:
    """Return the real paths of `folder` and of all its parents: the initial `visited` of `is_new_folder`."""
    path = os.path.realpath(folder)
    return {path, *map(str, Path(path).parents)}


def is_new_folder(folder: Path | str, visited: set[str]) -> bool:
    """Return whether the real path of `folder` is not in `visited`, and add it.

    A walk that follows links enters no folder twice when it asks this first.
    """
    path = os.path.realpath(folder)
    new = path not in visited
    visited.add(path)
    return new


def image_files_below(folder: Path) -> list[Path]:
    """Return the image files in and below `folder`, sorted.

    Links are followed, except to a folder that was visited before or that contains `folder`.
    """
    visited, found = enclosing_folders(folder), []
    for parent, inner, names in os.walk(folder, followlinks=True):
        found += [Path(parent) / name for name in names if is_image_file(name)]
        visible = [name for name in sorted(inner) if not name.startswith(".")]
        inner[:] = [name for name in visible if is_new_folder(Path(parent) / name, visited)]
    return sorted(found)


def open_image(path: Path | str, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Return the decoded image.

    With `at_least` (width, height) a JPEG can be decoded at a reduced size that is not below it, which is much
    faster. Raises UsageError that names the file if it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if at_least is not None:
                image.draft(None, at_least)
            image.load()
            return image
    except MemoryError:
        raise
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others on damaged files.
    except Exception as error:
        raise UsageError(f"cannot read the image file {path}: {first_line(error)}") from error


def as_array(image: Image.Image, channels: int, height: int, width: int) -> np.ndarray:
    """Return the image as uint8 [H, W, C], resized to cover height and width and then cropped at its centre.

    Raises UsageError for a colour mode that Pillow cannot convert.
    """
    image = _in_mode(image, MODES[channels])
    if image.size != (width, height):
        # Cropped by the same call, because a strip of one pixel enlarged as a whole would fill the memory.
        box = [
            *_covering(image.width, width, image.height, height),
            *_covering(image.height, height, image.width, width),
        ]
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=(box[0], box[2], box[1], box[3]))
    return np.array(image).reshape(height, width, channels)


def _covering(length: int, wanted: int, other_length: int, other_wanted: int) -> tuple[float, float]:
    """Return begin and end, in pixels of the source, of the central range that becomes `wanted` pixels."""
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
        raise UsageError(f"cannot read an image of colour mode {image.mode}: {error}") from error
