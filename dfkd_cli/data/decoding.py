"""Image files as batches of tensors, decoded by threads while the caller computes on the batch before."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dfkd_cli.data.image_files import DECODING_THREADS, as_array


def decoded_batches(
    open_image: Callable[[int], Image.Image], count: int, batch_size: int, size: tuple[int, int, int]
) -> Iterator[Tensor]:
    """Yield the images 0 to `count` - 1 as [B, C, H, W] in [0, 1], in order; the last batch can be smaller.

    `size` is (C, H, W). Raises what `open_image` raises for an image that cannot be decoded.
    """
    channels, height, width = size

    def read(indices: range) -> list[np.ndarray]:
        return [as_array(open_image(index), channels, height, width) for index in indices]

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
