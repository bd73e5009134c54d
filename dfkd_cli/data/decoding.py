"""Image files as batches of tensors, decoded by threads while the caller computes on the batch before."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dfkd_cli.data.fitting import fitted
from dfkd_cli.data.reading import ImageReader
from dfkd_cli.data.value_range import ValueRangeError
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec

DECODING_THREADS = min(8, os.cpu_count() or 1)


def unreadable(files: Sequence[Path], reader: ImageReader) -> frozenset[Path]:
    """Return those of the image files that cannot be decoded.

    Raises ValueRangeError for a file that can be decoded, but whose value range cannot be told.
    """

    def is_unreadable(file: Path) -> bool:
        try:
            reader.open(file)
        except ValueRangeError:
            raise
        except UsageError:
            return True
        return False

    with ThreadPoolExecutor(DECODING_THREADS) as threads:
        return frozenset(file for file, bad in zip(files, threads.map(is_unreadable, files), strict=True) if bad)


def decoded_batches(
    open_image: Callable[[int], Image.Image], count: int, batch_size: int, spec: InputSpec
) -> Iterator[Tensor]:
    """Yield the images 0 to `count` - 1 as [B, C, H, W] in [0, 1], in order; the last batch can be smaller.

    They have the size and the preprocessing of `spec`. `open_image` returns an image of mode L, LA, RGB or RGBA; what
    it raises for an image that cannot be decoded is raised here.
    """

    def read(indices: range) -> list[np.ndarray]:
        return [fitted(open_image(index), spec) for index in indices]

    threads = DECODING_THREADS
    with ThreadPoolExecutor(threads) as pool:
        # Pillow releases the interpreter's lock while it decodes, so threads suffice. The next batch is decoded while
        # the caller computes on the current one. One task per slice, because a task per image would cost more than
        # decoding a small image.
        def start(first: int) -> list[Future[list[np.ndarray]]]:
            indices = range(first, min(first + batch_size, count))
            return [pool.submit(read, indices[k::threads]) for k in range(threads)]

        tasks = start(0)
        for first in range(0, count, batch_size):
            slices, tasks = [task.result() for task in tasks], start(first + batch_size)
            arrays = [slices[index % threads][index // threads] for index in range(min(batch_size, count - first))]
            images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
            yield images.float().div(255)
