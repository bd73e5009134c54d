"""The value range of image files: which of their pixel values are black and white."""

from pathlib import Path

import numpy as np

from dfkd_cli.errors import UsageError

Range = tuple[float, float]  # the values of black and white
FLAG = "--value-range"
_DEPTHS = (8, 10, 12, 14, 16)  # bits per value of cameras, scanners and microscopes


class ValueRangeError(UsageError):
    """The values of an image file do not show which of them is white. The message names the flag."""


def check_value_range(values: Range) -> Range:
    """Return the range. Raises UsageError unless both numbers are finite and the first is smaller."""
    low, high = values
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise UsageError(f"{FLAG} {low:g}:{high:g}: the first number, black, must be smaller than the second, white")
    return float(low), float(high)


def told_range(values: np.ndarray, mode: str, path: Path | str) -> Range | None:
    """Return the range of a file that only its values can tell; None for an image of zeros, which every range has.

    16-bit integers are told by a value above half of their largest one. Wider integers are bytes if none is above 255.
    Floats are in [0, 1] if none is above 1, and bytes if all are whole numbers up to 255. Everything else can be told
    in several ways, such as 12 bits or a dark image of 16, and raises ValueRangeError.
    """
    low, high = float(values.min()), float(values.max())
    if low == high == 0:
        return None
    if low >= 0:
        if mode == "F":
            if high <= 1:
                return 0.0, 1.0
            if high <= 255 and (values == np.rint(values)).all():
                return 0.0, 255.0
        elif mode == "I" and high <= 255:
            return 0.0, 255.0
        elif 32767 < high <= 65535:
            return 0.0, 65535.0
    raise ValueRangeError(
        f"the value range of the image file {path} cannot be told: its values ({_kind(mode)}, Pillow's mode {mode}) "
        f"are {low:g} to {high:g}; give {FLAG} BLACK:WHITE for the image files, for example {_examples(low, high)}"
    )


def to_bytes(values: np.ndarray, limits: Range, white_is_low: bool = False) -> np.ndarray:
    """Return the values as uint8, where `limits` become 0 and 255, or 255 and 0; values outside are clipped."""
    low, high = limits
    scaled = np.rint((values.astype(np.float64) - low) * (255.0 / (high - low))).clip(0, 255).astype(np.uint8)
    return 255 - scaled if white_is_low else scaled


def is_outside(values: np.ndarray, limits: Range) -> bool:
    """Return whether a value is below or above the range."""
    return bool(values.min() < limits[0] or values.max() > limits[1])


def _kind(mode: str) -> str:
    return {"F": "floats", "I": "32-bit integers"}.get(mode, "16-bit integers")


def _examples(low: float, high: float) -> str:
    if low < 0 or high > 65535:
        return f"{low:.6g}:{high:.6g}"
    fitting = [2**bits - 1 for bits in _DEPTHS if high <= 2**bits - 1]
    return " or ".join(f"0:{white}" for white in dict.fromkeys((fitting[0], fitting[-1])))
