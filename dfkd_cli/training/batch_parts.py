"""Computation of a batch in parts after memory ran out."""

from collections.abc import Callable
from typing import TypeVar

import torch

from dfkd_cli.errors import OutOfMemoryError, first_line, is_out_of_memory
from dfkd_cli.machine.allocator import make_room
from dfkd_cli.machine.new_thread import in_new_thread
from dfkd_cli.machine.world.errors import CalledOffError
from dfkd_cli.machine.world.world import ALONE, World

SMALLEST_PART = 2  # images: BatchNorm needs two

Result = TypeVar("Result")


class BatchParts:
    """The number of parts in which a batch is computed: 1, doubled each time that memory runs out.

    It is the same in all processes of a world: when one runs out of memory, all compute the batch anew.
    """

    def __init__(self, device: torch.device, world: World = ALONE):
        self.device, self.world = device, world
        self.count = 1
        self._fits = False  # whether a whole batch was computed in this process

    def fit(self, size: int, compute: Callable[[int], Result]) -> Result:
        """Return `compute(count)` for a batch of `size` images, with the number of parts that fits into memory.

        Raises OutOfMemoryError when parts of two images are still too large.
        """
        while True:
            try:
                result = self._attempt(compute)
                self.world.steps += 1
                return result
            except CalledOffError as error:
                reason = str(error)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            # Outside the handler, because the error's traceback references the tensors of the failed attempt.
            self.world.call_off(reason)
            if size < 2 * self.count * SMALLEST_PART:
                each = size // self.count
                raise OutOfMemoryError(f"out of memory with {each} images at a time: {reason}; use a smaller network")
            self.count *= 2
            self._fits = False
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            elif self.device.type == "cpu":
                make_room()

    def _attempt(self, compute: Callable[[int], Result]) -> Result:
        """Return `compute(self.count)`, on a CPU in a new thread until a whole batch has fitted."""
        if self._fits or self.device.type != "cpu":
            return compute(self.count)
        result = in_new_thread(lambda: compute(self.count))
        self._fits = self.count == 1
        return result

    def note(self, what: str) -> list[str]:
        """Return a sentence for the user after memory ran out, else nothing. `what` names the computation in parts."""
        if self.count == 1:
            return []
        return [
            f"Memory ran out: {what} in {self.count} parts whose gradients are added up. "
            "Statistics of a batch, such as those of BatchNorm, are those of a part."
        ]
