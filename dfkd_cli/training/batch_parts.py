"""Going on with half as many images at a time when memory runs out."""

from collections.abc import Callable
from typing import TypeVar

import torch

from dfkd_cli.errors import OutOfMemoryError, first_line, is_out_of_memory
from dfkd_cli.machine.allocator import make_room

SMALLEST_PART = 2  # images: BatchNorm needs two

Result = TypeVar("Result")


class BatchParts:
    """In how many parts a batch is computed: at once until memory runs out; from then on in two, four ... parts."""

    def __init__(self):
        self.count = 1

    def fit(self, size: int, compute: Callable[[int], Result]) -> Result:
        """What `compute`, told the number of parts, returns for a batch of `size` images, once it fits.

        Raises OutOfMemoryError when parts of two images are still too large.
        """
        while True:
            try:
                return compute(self.count)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            # Outside the handler: the error's traceback holds on to the tensors of the failed attempt.
            if size < 2 * self.count * SMALLEST_PART:
                each = size // self.count
                raise OutOfMemoryError(f"out of memory with {each} images at a time: {reason}; use a smaller network")
            self.count *= 2
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            else:
                make_room()

    def note(self, what: str) -> list[str]:
        """What the user should know, one sentence, once memory ran out: `what` happens in parts."""
        if self.count == 1:
            return []
        return [
            f"Memory ran out: {what} in {self.count} parts whose gradients are added up. What is measured over a "
            "batch, BatchNorm statistics above all, is now measured over a part."
        ]
