"""A pool of pictures that show nothing, for the methods that choose their images."""

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
    """A folder of grey pictures of noise, made once per process and gone at its end."""
    folder = Path(tempfile.mkdtemp(prefix="dfkd-pool-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    pixels = torch.randint(256, (COUNT, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture.numpy()).save(folder / f"{number:02}.png")
    return folder
