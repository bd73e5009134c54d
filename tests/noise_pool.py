"""A pool of images of noise, for the methods that select their images from a pool."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch
from PIL import Image

COUNT, SIZE = 60, (8, 8)


@functools.cache
def noise_pool() -> Path:
    """Return a folder of grey images of noise, made once per process and deleted at its end."""
    folder = Path(tempfile.mkdtemp(prefix="dfkd-pool-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    pixels = torch.randint(256, (COUNT, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(folder / f"{number:02}.png")
    return folder
