"""The gradient of one student batch in as many parts as the memory asks for."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dfkd_cli.training.batch_parts import BatchParts
from dfkd_cli.training.method import Batch
from dfkd_cli.training.setting import Terms

Loss = Callable[[Batch], tuple[Terms, Terms]]  # as `Method.student_loss`


class Accumulation:
    """The gradient of a student's batch, computed in as many parts as it takes."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self.parts = BatchParts()

    def backward(self, batch: Batch, loss: Loss) -> Terms:
        """Leaves the gradient of the batch's mean loss in the parameters; returns the means of what `loss` returns.

        Raises OutOfMemoryError when parts of two images are still too large.
        """
        return self.parts.fit(len(batch.images), lambda count: self._sum_over_parts(batch, loss, count))

    def _sum_over_parts(self, batch: Batch, loss: Loss, count: int) -> Terms:
        self.optimizer.zero_grad(set_to_none=True)
        sums: Terms = {}
        for part in split(batch, count):
            terms, logged = loss(part)
            total = torch.stack(list(terms.values())).sum()
            values = {"loss": total, **terms, **logged}
            if count == 1:
                total.backward()
                return values
            share = len(part.images) / len(batch.images)
            (share * total).backward()
            for name, value in values.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + share * value.detach()
        return sums


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch in parts of nearly equal size."""
    if parts == 1:
        yield batch
        return
    fields = [field.tensor_split(parts) if isinstance(field, Tensor) else [field] * parts for field in batch]
    for values in zip(*fields, strict=True):
        yield Batch(*values)
