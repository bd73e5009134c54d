"""The images of the page, grouped by the class that the teacher predicts."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from dfkd_cli.data.sample_grid import to_pillow

# Images up to the first side are embedded unchanged as PNG. Larger ones are reduced to the second side and embedded as
# JPEG, so that a hundred of them stay far below the size limit of the page even if they are noise.
_LOSSLESS_SIDE, _REDUCED_SIDE = 64, 112
_MANY = 4  # images per class, on average, from which the classes are arranged in columns


class ClassImages(NamedTuple):
    """The images of one class."""

    label: str
    sources: list[str]  # data URIs


class Gallery(NamedTuple):
    """The images of the page."""

    groups: list[ClassImages]
    small: bool  # whether images have few pixels, which are shown without smoothing
    columns: bool  # whether classes are arranged in columns


def class_label(number: int, names: Sequence[str] | None) -> str:
    """Return a class's number, with its name if it is known."""
    return str(number) if names is None or names[number] == str(number) else f"{number} {names[number]}"


def gallery(images: Tensor, classes: Tensor, names: Sequence[str] | None, beside: int = 1) -> Gallery:
    """Return images [N, C, H, W] in [0, 1], grouped by `classes` [N]; each shows `beside` images beside each other."""
    groups: dict[int, list[str]] = {}
    order = classes.argsort(stable=True)
    for number, image in zip(classes[order].tolist(), images[order].detach().float().cpu(), strict=True):
        groups.setdefault(number, []).append(data_uri(image, beside))
    return Gallery(
        groups=[ClassImages(class_label(number, names), sources) for number, sources in groups.items()],
        small=max(images.shape[-2:]) <= _LOSSLESS_SIDE,
        columns=len(images) >= _MANY * len(groups) and beside == 1,
    )


def data_uri(image: Tensor, beside: int = 1) -> str:
    """Return an image [C, H, W] in [0, 1] as a data URI."""
    pixels = to_pillow(image)
    content, form = io.BytesIO(), "png"
    if max(pixels.size) > _LOSSLESS_SIDE:
        form = "jpeg"
        pixels.thumbnail((beside * _REDUCED_SIDE, _REDUCED_SIDE))
    pixels.save(content, form, optimize=True)
    return f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"
