"""A pool of pictures that show nothing, for the methods that choose their images."""

from pathlib import Path

import torch
from PIL import Image


def make_noise_pool(folder: Path, count: int = 60, size: tuple[int, int] = (8, 8)) -> Path:
    """Writes `count` grey pictures of noise and returns the folder."""
    pixels = torch.randint(256, (count, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture.numpy()).save(folder / f"{number:02}.png")
    return folder
