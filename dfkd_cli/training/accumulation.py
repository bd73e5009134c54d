"""The gradient of one student batch in as many parts as the memory requires."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.training.batch_parts import BatchParts
from dfkd_cli.training.method import Batch, StudentTerms
from dfkd_cli.training.setting import Terms

Loss = Callable[[Batch], StudentTerms]


class Accumulation:
    """Computes the gradient of a student's batch, in parts after memory ran out, as its mean over all processes."""

    def __init__(self, optimizer: torch.optim.Optimizer, world: World = ALONE):
        self.optimizer, self.world = optimizer, world
        self.parts = BatchParts(optimizer.param_groups[0]["params"][0].device, world)

    def backward(self, batch: Batch, loss: Loss) -> tuple[Terms, Mapping[str, Tensor]]:
        """Store the gradient of the batch's mean loss in the parameters.

        Return the means of all terms and logged values, and the per-image values of the whole batch. Raises
        OutOfMemoryError when parts of two images are still too large.
        """
        return self.parts.fit(len(batch.images), lambda count: self._gradients(batch, loss, count))

    def _gradients(self, batch: Batch, loss: Loss, count: int) -> tuple[Terms, Mapping[str, Tensor]]:
        result = self._sum_over_parts(batch, loss, count)
        self.world.average_gradients([value for group in self.optimizer.param_groups for value in group["params"]])
        return result

    def _sum_over_parts(self, batch: Batch, loss: Loss, count: int) -> tuple[Terms, Mapping[str, Tensor]]:
        self.optimizer.zero_grad(set_to_none=True)
        sums: Terms = {}
        per_image: dict[str, list[Tensor]] = {}
        for part in split(batch, count):
            terms, logged, of_images = loss(part)
            total = torch.stack(list(terms.values())).sum()
            values = {"loss": total, **terms, **logged}
            if count == 1:
                total.backward()
                return values, of_images
            share = len(part.images) / len(batch.images)
            (share * total).backward()
            for name, value in values.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + share * value.detach()
            for name, value in of_images.items():
                per_image.setdefault(name, []).append(value)
        return sums, {name: torch.cat(values) for name, values in per_image.items()}


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """Yield the batch in parts of nearly equal size."""
    if parts == 1:
        yield batch
        return
    fields = [field.tensor_split(parts) if isinstance(field, Tensor) else [field] * parts for field in batch]
    for values in zip(*fields, strict=True):
        yield Batch(*values)
