"""Reads image files: upright, with 8 bits per channel."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageCms, ImageFile

from dfkd_cli.data.deep_colour import deep_rawmode, sixteen_bits
from dfkd_cli.data.image_files import formats
from dfkd_cli.data.value_range import (
    FLAG,
    Range,
    ValueRangeError,
    check_value_range,
    is_outside,
    to_bytes,
    told_range,
)
from dfkd_cli.errors import UsageError, first_line

Orientation = Literal["apply", "ignore"]
ORIENTATION_FLAG = "--exif-orientation"
_PLAIN = ("L", "LA", "RGB", "RGBA")
_NEARLY_BLACK = 32  # of 255
_ORIENTATION, _PHOTOMETRIC, _BITS = 274, 262, 258  # tags of EXIF and TIFF
_UPRIGHT = {  # EXIF orientation -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ReadOptions:
    """How image files are read. Raises UsageError for values outside their range."""

    value_range: Range | None = None  # of integers with more than 8 bits, and of floats; None: told by each file
    exif_orientation: Orientation = "apply"

    def __post_init__(self) -> None:
        if self.value_range is not None:
            check_value_range(self.value_range)
        if self.exif_orientation not in get_args(Orientation):
            raise UsageError(f"{ORIENTATION_FLAG} {self.exif_orientation}: use {' or '.join(get_args(Orientation))}")

    def as_words(self) -> tuple[str, ...]:
        """Return the command-line words that give these options."""
        limits = () if self.value_range is None else (FLAG, f"{self.value_range[0]:.9g}:{self.value_range[1]:.9g}")
        return limits if self.exif_orientation == "apply" else (*limits, ORIENTATION_FLAG, self.exif_orientation)


class ImageReader:
    """Reads image files and keeps what the user should know of them. Threads can share it."""

    def __init__(self, options: ReadOptions | None = None):
        self.options = options or ReadOptions()
        self.turned: set[str] = set()  # files with an EXIF orientation other than upright
        self.clipped: set[str] = set()  # files with values outside `options.value_range`
        self.brightest: int | None = None  # largest value of 255, as far as it is not above `_NEARLY_BLACK`
        self._lock = Lock()
        self.told: dict[str, tuple[Range, str]] = {}  # mode -> a range that the values of a file told, and the file

    def open(self, path: Path | str, at_least: int | None = None) -> Image.Image:
        """Return the image in the mode L, LA, RGB or RGBA.

        With `at_least` a JPEG can be decoded at a reduced size whose sides are not below it, which is much faster.
        Raises ValueRangeError when its value range cannot be told, and UsageError when it cannot be decoded; both name
        the file.
        """
        try:
            with Image.open(path, formats=formats()) as image:
                tags = getattr(image, "tag_v2", {})
                turned = tags.get(_ORIENTATION, 1)  # Pillow turns a TIFF while it decodes it
                if turned in _UPRIGHT:
                    image.filename = ""  # or Pillow maps an uncompressed TIFF of other sides than the turned image
                declared, deep = _declared_range(image, tags), deep_rawmode(image)
                if at_least is not None:
                    image.draft(None, (at_least, at_least))
                image.load()
                plain = self._plain(image, path, declared, tags.get(_PHOTOMETRIC) == 0, deep)
                self._note_brightness(plain)
                return self._upright(plain, _orientation(image), turned, path)
        except (MemoryError, UsageError):
            raise
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others on damaged files.
        except Exception as error:
            raise UsageError(f"cannot read the image file {path}: {first_line(error)}") from error

    def notes(self) -> tuple[str, ...]:
        """Return what the user should know of the files that were read, one sentence each."""
        found = []
        if self.turned:
            files = _files(len(self.turned), "has", "have")
            found.append(
                f"{files} an EXIF orientation, with which they were turned upright. torchvision and timm do not do "
                f"this; {ORIENTATION_FLAG} ignore reads the pixels as they do."
                if self.options.exif_orientation == "apply"
                else f"{files} an EXIF orientation, which was ignored ({ORIENTATION_FLAG} ignore)."
            )
        for mode, ((low, high), path) in sorted(self.told.items()):
            if mode in ("I", "F"):
                kind = "floats" if mode == "F" else "32-bit integers"
                found.append(
                    f"The values of image files with {kind} (such as {path}) were taken to be {low:g} for black and "
                    f"{high:g} for white; {FLAG} states another range."
                )
        if self.brightest is not None and self.brightest <= _NEARLY_BLACK:
            found.append(
                f"No pixel of the image files is above {self.brightest} of 255, so they are nearly black. If their "
                "values have fewer bits than their format, scale them; for files with 16 or 32 bits "
                f"{FLAG} states the range."
            )
        if self.clipped:
            found.append(f"{_files(len(self.clipped), 'has', 'have')} values outside {FLAG}, which were clipped.")
        return tuple(found)

    def _plain(
        self, image: Image.Image, path: Path | str, declared: Range | None, white_is_low: bool, deep: str | None
    ) -> Image.Image:
        """Return the decoded image in the mode L, LA, RGB or RGBA."""
        if image.mode == "F" or image.mode.startswith("I"):
            values = np.asarray(image)
            return Image.fromarray(to_bytes(values, self._range(values, image.mode, path, declared), white_is_low))
        if deep is not None and (self.options.value_range is not None or _is_dark(image)):
            values, alpha = sixteen_bits(path, deep)
            colours = to_bytes(values, self._range(values, deep, path, None))
            channels = colours if alpha is None else np.concatenate([colours, alpha], axis=2)
            return Image.fromarray(channels.squeeze(2) if channels.shape[2] == 1 else channels)
        return _in_plain_mode(image)

    def _note_brightness(self, image: Image.Image) -> None:
        if self.brightest is None or self.brightest <= _NEARLY_BLACK:  # one bright image is enough
            value = _brightest(image)
            with self._lock:
                self.brightest = max(self.brightest or 0, value)

    def _range(self, values: np.ndarray, mode: str, path: Path | str, declared: Range | None) -> Range:
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise ValueRangeError(
                f"the image file {path} (Pillow's mode {mode}) has {count:,} values that are NaN or infinite, which no "
                "value range covers; replace them"
            )
        given = self.options.value_range
        if given is not None:
            if is_outside(values, given):
                self.clipped.add(str(path))
            return given
        if declared is not None:
            return declared
        told = told_range(values, mode, path)
        if told is None:
            return 0.0, 1.0
        other, where = self.told.setdefault(mode, (told, str(path)))
        if other != told:
            raise ValueRangeError(
                f"the value range of the image files cannot be told: the values of {where} (Pillow's mode {mode}) look "
                f"like {other[0]:g}:{other[1]:g}, those of {path} ({values.min():g} to {values.max():g}) like "
                f"{told[0]:g}:{told[1]:g}; give {FLAG} BLACK:WHITE"
            )
        return told

    def _upright(self, image: Image.Image, orientation: int, turned: int, path: Path | str) -> Image.Image:
        if orientation in _UPRIGHT or turned in _UPRIGHT:
            self.turned.add(str(path))
        if orientation in _UPRIGHT and self.options.exif_orientation == "apply":
            return image.transpose(_UPRIGHT[orientation])
        return image


def _in_plain_mode(image: Image.Image) -> Image.Image:
    """Return an image with 8 bits per channel in the mode L, LA, RGB or RGBA, whichever keeps its channels."""
    if image.mode in _PLAIN:
        return image
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
        if converted is None:
            raise ValueError("LAB colours cannot be converted")
        return converted
    if image.mode in ("PA", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert({"1": "L", "La": "LA"}.get(image.mode, "RGB"))


def _declared_range(image: Image.Image, tags: dict) -> Range | None:
    """Return the range that the header of a file declares below the 16 bits of its values; None without one."""
    bits = tags.get(_BITS, (16,))[0]
    if 8 < bits < 16:
        return 0.0, 2.0**bits - 1
    # Pillow scales the values of a PGM file by the largest one that its header states.
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    scaled = image.format == "PPM" and any(tile.codec_name.startswith("ppm") for tile in tiles)
    return (0.0, 65535.0) if scaled else None


def _is_dark(image: Image.Image) -> bool:
    """Return whether no colour is above half of the range, so that its 16-bit values can be those of fewer bits."""
    return _brightest(image) < 128


def _brightest(image: Image.Image) -> int:
    """Return the largest value of the colours, without alpha."""
    bands = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
    return max(int(np.asarray(image.getchannel(band)).max()) for band in bands)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not make an image unreadable
        return 1


def _files(count: int, one: str, many: str) -> str:
    return f"1 image file {one}" if count == 1 else f"{count:,} image files {many}"
