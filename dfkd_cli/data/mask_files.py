"""Mask files: the class of each pixel of an image, as the value of a grey or palette pixel."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dfkd_cli.errors import UsageError, first_line

UNCOUNTED = -1  # the class of pixels that do not count, in tensors
_GREY = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes with one number per pixel


def read_mask(path: Path, num_classes: int, ignored: frozenset[int], classes: Mapping[int, int] | None) -> Tensor:
    """Return the class of each pixel: int64 [H, W], `UNCOUNTED` where the file has a value in `ignored`.

    `classes` are the classes of the values in the file; None if the values are the classes. Raises UsageError that
    names the file when it is no image with one value per pixel, or when a value is no class.
    """
    values = _values(path)
    present, places = np.unique(values, return_inverse=True)
    numbers = []
    for value in present.tolist():
        number = value if classes is None else classes.get(value, num_classes)
        if value not in ignored and not 0 <= number < num_classes:
            raise UsageError(
                f"the mask {path} has the value {value}, but the network has the classes 0 to {num_classes - 1}; give "
                f"--ignore-index {value} if these pixels do not count"
            )
        numbers.append(UNCOUNTED if value in ignored else number)
    return torch.from_numpy(np.array(numbers, dtype=np.int64)[places].reshape(values.shape))


def _values(path: Path) -> np.ndarray:
    """Return the values of a mask, [H, W]. Raises UsageError when the file is no mask."""
    try:
        with Image.open(path) as image:
            image.load()
            mode, values = image.mode, np.array(image)
    except MemoryError:
        raise
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others on damaged files.
    except Exception as error:
        raise UsageError(f"cannot read the mask {path}: {first_line(error)}") from error
    if mode not in _GREY:
        raise UsageError(
            f"the mask {path} is an image of colour mode {mode}; the values of a grey or palette image are the classes"
        )
    return values.astype(np.int64)
