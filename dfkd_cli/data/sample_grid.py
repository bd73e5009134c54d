"""`samples.png`: a grid of images, each with the class that the teacher predicts for it."""

import io
import math
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_SMALLEST, _LARGEST = 64, 160  # pixels of the longer side of a cell, so that images of every size are visible
_GAP, _CAPTION = 6, 14  # pixels between cells, and of the line of text below each
_MANY = 4  # images per class, on average, from which each class begins a row
_WIDEST = 16  # images in such a row; the other images of the class continue below
_BACKGROUND, _INK = (255, 255, 255), (60, 60, 60)


def grid_of(images: Tensor, classes: Tensor, beside: int = 1) -> bytes:
    """Return a PNG of `images` [N, C, H, W] in [0, 1], sorted by `classes` [N], with the class number below each image.

    With one or two channels the first is shown as grey, with three or more the first three as RGB. Small images are
    enlarged without smoothing, so that every pixel is visible; large images are reduced. If there are at least four
    images per class on average, each class begins a row. Each image can show `beside` images beside each other.
    """
    order = classes.argsort(stable=True)
    numbers = classes[order].tolist()
    cells = [_scaled(to_pillow(image), beside) for image in images[order].detach().float().cpu()]
    places = _places(numbers)
    width, height = cells[0].size
    rows, columns = (max(ends) + 1 for ends in zip(*places, strict=True))
    step_x, step_y = width + _GAP, height + _CAPTION + _GAP
    grid = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _BACKGROUND)
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default()
    for (row, column), cell, number in zip(places, cells, numbers, strict=True):
        x, y = _GAP + column * step_x, _GAP + row * step_y
        grid.paste(cell, (x, y))
        text = str(number)
        draw.text((x + (width - draw.textlength(text, font)) / 2, y + height + 1), text, _INK, font)
    content = io.BytesIO()
    grid.save(content, "PNG")
    return content.getvalue()


def _places(numbers: list[int]) -> list[tuple[int, int]]:
    """Return row and column of each image, given the sorted class numbers."""
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
    """Return the images [N, C, H, W] of a file with the PNG of `grid_of`, where `size` is (C, H, W).

    Images that `grid_of` reduced are enlarged again, so they lack detail. Raises OSError if the file cannot be read
    and ValueError if it has another layout or images of `size` have channels that it does not show.
    """
    channels, height, width = size
    if channels not in (1, 3):
        raise ValueError(f"an image grid does not show {channels} channels")
    with Image.open(path) as file:
        grid = np.asarray(file.convert("RGB"))
    shown_width, shown_height = _scaled(to_pillow(torch.zeros(size))).size
    step_x, step_y = shown_width + _GAP, shown_height + _CAPTION + _GAP
    rows, columns = (grid.shape[0] - _GAP) // step_y, (grid.shape[1] - _GAP) // step_x
    if not rows or not columns or grid.shape[:2] != (rows * step_y + _GAP, columns * step_x + _GAP):
        raise ValueError(f"{path} is not a grid of images of {channels}x{height}x{width}")
    cells = grid[_GAP:, _GAP:].reshape(rows, step_y, columns, step_x, 3)[:, :shown_height, :, :shown_width]
    images = torch.from_numpy(cells.copy()).permute(0, 2, 4, 1, 3).flatten(0, 1)[:, :channels]
    used = (images != _BACKGROUND[0]).flatten(1).any(dim=1)  # a row can end with empty cells
    mode = "nearest" if shown_height >= height else "bilinear"
    return F.interpolate(images[used].float() / 255.0, (height, width), mode=mode)


def to_pillow(image: Tensor) -> Image.Image:
    """Return an image [C, H, W] in [0, 1], on the CPU and with any number of channels, as a Pillow image in RGB."""
    image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))


def _scaled(image: Image.Image, beside: int = 1) -> Image.Image:
    side = max(image.size)
    if side < _SMALLEST:
        times = math.ceil(_SMALLEST / side)
        return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image.thumbnail((beside * _LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return image
