"""Exchanges of tensors through which gradients flow, and the groups in which gradients are sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dfkd_cli.machine.world.world import World

BUCKET_BYTES = 25 * 2**20  # of gradients that are sent at once, as in DistributedDataParallel


class Mean(torch.autograd.Function):
    """The mean over the processes. Its gradient is that of the sum of all processes' losses."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, world: World) -> Tensor:
        ctx.world = world
        mean = values.detach().clone()
        world.reduce(mean)
        return mean.div_(world.size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].contiguous().clone()
        ctx.world.reduce(gradient)
        return gradient.div_(ctx.world.size), None


class Gather(torch.autograd.Function):
    """The values of all processes. Its gradient is that of the sum of all processes' losses."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, world: World) -> Tensor:
        ctx.world = world
        return world.gathered(values.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].contiguous().clone()
        ctx.world.reduce(gradient)
        return gradient[ctx.world.rank], None


def buckets_of(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the gradients in groups of one type and about BUCKET_BYTES, the last layers first."""
    bucket: list[Tensor] = []
    for gradient in reversed(gradients):
        if bucket and (bucket[0].dtype != gradient.dtype or sum(one.nbytes for one in bucket) >= BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
