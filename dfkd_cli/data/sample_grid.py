"""A picture of synthetic images with the class that the teacher sees in each."""

import io
import math
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dfkd_cli.machine.files import write_atomically

_SMALLEST, _LARGEST = 64, 160  # pixels of a picture's longer side, so that all sizes can be looked at
_GAP, _CAPTION = 6, 14  # pixels between pictures, and for the line of text below each
_MANY = 4  # images per class from which every class begins a row
_WIDEST = 16  # pictures in such a row; the rest of a class goes below it
_BACKGROUND, _INK = (255, 255, 255), (60, 60, 60)


def save_grid(images: Tensor, classes: Tensor, path: Path) -> None:
    """Write a PNG of `images` [N, C, H, W] in [0, 1], sorted by `classes` [N], each with its class number below it.

    One channel is shown grey, of two the first, of four or more the first three as RGB. Small images are enlarged
    without smoothing, so that every pixel is seen; large ones are shrunk. Where there are four images per class or
    more, each class begins a row.
    """
    order = classes.argsort(stable=True)
    numbers = classes[order].tolist()
    pictures = [_scaled(as_picture(image)) for image in images[order].detach().float().cpu()]
    places = _places(numbers)
    width, height = pictures[0].size
    rows, columns = (max(ends) + 1 for ends in zip(*places, strict=True))
    step_x, step_y = width + _GAP, height + _CAPTION + _GAP
    grid = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _BACKGROUND)
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default()
    for (row, column), picture, number in zip(places, pictures, numbers, strict=True):
        x, y = _GAP + column * step_x, _GAP + row * step_y
        grid.paste(picture, (x, y))
        text = str(number)
        draw.text((x + (width - draw.textlength(text, font)) / 2, y + height + 1), text, _INK, font)
    content = io.BytesIO()
    grid.save(content, "PNG")
    write_atomically(path, content.getvalue())


def _places(numbers: list[int]) -> list[tuple[int, int]]:
    """Row and column of each picture, given the sorted class numbers."""
    counts = Counter(numbers)
    if len(numbers) < _MANY * len(counts):
        columns = math.ceil(math.sqrt(len(numbers)))
        return [divmod(place, columns) for place in range(len(numbers))]
    places, row = [], 0
    for count in counts.values():
        places += [(row + place // _WIDEST, place % _WIDEST) for place in range(count)]
        row = places[-1][0] + 1
    return places


def read_grid(path: Path, size: tuple[int, int, int]) -> Tensor:
    """The images [N, C, H, W] of a picture that `save_grid` made of images of `size`, as exact as it shows them.

    Raises OSError when there is no picture and ValueError when it has another layout or lacks channels.
    """
    channels, height, width = size
    if channels not in (1, 3):
        raise ValueError(f"a picture does not show {channels} channels")
    with Image.open(path) as file:
        grid = np.asarray(file.convert("RGB"))
    shown_width, shown_height = _scaled(as_picture(torch.zeros(size))).size
    step_x, step_y = shown_width + _GAP, shown_height + _CAPTION + _GAP
    rows, columns = (grid.shape[0] - _GAP) // step_y, (grid.shape[1] - _GAP) // step_x
    if not rows or not columns or grid.shape[:2] != (rows * step_y + _GAP, columns * step_x + _GAP):
        raise ValueError(f"{path} is no grid of images of {channels}x{height}x{width}")
    cells = grid[_GAP:, _GAP:].reshape(rows, step_y, columns, step_x, 3)[:, :shown_height, :, :shown_width]
    pictures = torch.from_numpy(cells.copy()).permute(0, 2, 4, 1, 3).flatten(0, 1)[:, :channels]
    used = (pictures != _BACKGROUND[0]).flatten(1).any(dim=1)  # a row may end in empty places
    mode = "nearest" if shown_height >= height else "bilinear"
    return F.interpolate(pictures[used].float() / 255.0, (height, width), mode=mode)


def as_picture(image: Tensor) -> Image.Image:
    """An image [C, H, W] on the CPU, in [0, 1], as an RGB picture of the same size, whatever its channels."""
    image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))


def _scaled(picture: Image.Image) -> Image.Image:
    side = max(picture.size)
    if side < _SMALLEST:
        times = math.ceil(_SMALLEST / side)
        return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    picture.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return picture
