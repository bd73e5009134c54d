"""BatchNorm layers whose batch statistics are those of the batches of all processes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from dfkd_cli.machine.world.world import World


def synchronise(module: nn.Module, world: World) -> None:
    """Make all BatchNorm layers of the module compute the statistics of all processes' batches while they train.

    The layers keep their tensors and the names of these. torch's SyncBatchNorm is not used because it refuses CPUs.
    """
    for layer in module.modules() if world.several else ():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, _Synchronised):
            kind = type(layer)
            layer.__class__ = type(f"Synchronised{kind.__name__}", (_Synchronised, kind), {})
            vars(layer)["world"] = world


class _Synchronised(_BatchNorm):
    world: World

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input: [B, C, ...] -> the same shape."""
        if not self.training or not self.world.several:
            return super().forward(input)
        normalised = _normalised(self, input, self.world)
        for name in ("drop", "act"):  # timm's layers contain what follows them
            if isinstance(layer := getattr(self, name, None), nn.Module):
                normalised = layer(normalised)
        return normalised


def _normalised(layer: Any, inputs: Tensor, world: World) -> Tensor:
    """Return the inputs normalised with the statistics of all processes, which the running statistics follow."""
    channels = inputs.new_zeros(inputs.shape[1], dtype=torch.float32)
    near = channels if layer.running_mean is None else layer.running_mean.detach().float()
    weight, bias = (layer.weight, layer.bias) if layer.affine else (channels + 1, channels)
    output, mean, variance = world.apply(_Normalise, inputs, weight, bias, near.clone(), layer.eps)
    if layer.running_mean is not None:
        with torch.no_grad():
            _follow(layer, mean, variance, world.size * inputs.numel() // inputs.shape[1])
    return output


class _Normalise(torch.autograd.Function):
    """BatchNorm with one exchange in each direction; PyTorch's own operations compute what is local.

    Elementary operations with their gradients would read the inputs three times as often.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, near: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output, and mean and variance per channel. `near` estimates the mean and avoids cancellation."""
        mean, variance = torch.batch_norm_update_stats(inputs, near, torch.ones_like(near), 0.0)
        offset = mean.double() - near
        mean, square = _means(torch.stack([offset, variance.double() + offset.square()]), world)
        variance = (square - mean.square()).clamp_min_(0.0).float()
        mean = (mean + near).float()
        ctx.save_for_backward(inputs, weight, mean, variance)
        ctx.eps, ctx.world = eps, world
        ctx.mark_non_differentiable(mean, variance)
        return functional.batch_norm(inputs, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients of the sum of all processes' losses, those of weight and bias for the local batch."""
        inputs, weight, mean, variance = ctx.saved_tensors
        count = inputs.numel() // inputs.shape[1]
        fixed = (weight, mean, variance, None, None, False, ctx.eps)  # as if the statistics were constants
        own, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], inputs, *fixed, [True, True, True]
        )
        scale = weight * (variance + ctx.eps).rsqrt()
        slope, shift = scale * (_means(torch.stack([of_weight, of_bias]), ctx.world) / count).float()
        through_statistics = functional.batch_norm(inputs, mean, variance, slope, shift, eps=ctx.eps)
        return own.sub_(through_statistics), of_weight, of_bias, None, None, None


def _means(values: Tensor, world: World) -> Tensor:
    """Return the means over the processes in float64: [2, C] -> the same shape. They travel in float32."""
    sums = values.float()
    world.reduce(sums)
    return sums.double() / world.size


def _follow(layer: Any, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics with those of a batch of `count` values per channel."""
    layer.num_batches_tracked += 1
    weight = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, weight)
    layer.running_var.lerp_(variance * (count / max(count - 1, 1)), weight)
