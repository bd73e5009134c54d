"""Gradients of one batch in as many parts as the memory asks for."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dfkd_cli.errors import OutOfMemoryError, is_out_of_memory
from dfkd_cli.loading.failures import first_line
from dfkd_cli.methods.base import Batch
from dfkd_cli.setting import Terms

SMALLEST_PART = 2  # images: the student's BatchNorm needs two

Loss = Callable[[Batch], tuple[Terms, Terms]]  # as `Method.student_loss`


class Accumulation:
    """Computes a batch at once until memory runs out; from then on in twice, four times ... as many parts."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self.parts = 1

    def backward(self, batch: Batch, loss: Loss) -> Terms:
        """Leaves the gradient of the batch's mean loss in the parameters; returns the means of what `loss` returns.

        Raises OutOfMemoryError when parts of two images are still too large.
        """
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return self._sum_over_parts(batch, loss)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                too_small = len(batch.images) < 2 * self.parts * SMALLEST_PART
                reason = first_line(error)
            # Outside the handler: the error's traceback holds on to the tensors of the failed attempt.
            if too_small:
                size = len(batch.images) // self.parts
                raise OutOfMemoryError(f"out of memory with {size} images at a time: {reason}; use a smaller network")
            self.parts *= 2
            if batch.images.is_cuda:
                torch.cuda.empty_cache()

    def _sum_over_parts(self, batch: Batch, loss: Loss) -> Terms:
        sums: Terms = {}
        for part in split(batch, self.parts):
            terms, logged = loss(part)
            total = torch.stack(list(terms.values())).sum()
            values = {"loss": total, **terms, **logged}
            if self.parts == 1:
                total.backward()
                return values
            share = len(part.images) / len(batch.images)
            (share * total).backward()
            for name, value in values.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + share * value.detach()
        return sums

    def note(self) -> list[str]:
        """What the user should know, one sentence, once memory ran out."""
        if self.parts == 1:
            return []
        return [
            f"Memory ran out: every batch is learned from in {self.parts} parts whose gradients are added up. "
            "What is measured over a batch, BatchNorm statistics above all, is now measured over a part."
        ]


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch in parts of nearly equal size."""
    if parts == 1:
        yield batch
        return
    fields = [field.tensor_split(parts) if isinstance(field, Tensor) else [field] * parts for field in batch]
    for values in zip(*fields, strict=True):
        yield Batch(*values)
