"""BatchNorm layers whose batch statistics are those of the batches of all processes."""

from typing import Any

import torch
from torch import Tensor, nn
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
    shape = [1, -1, *[1] * (inputs.dim() - 2)]
    dims = [0, *range(2, inputs.dim())]
    values = inputs.float()
    running = layer.running_mean is not None
    # An estimate of the mean, which prevents cancellation in the variance.
    near = layer.running_mean.detach().clone() if running else values.new_zeros(values.shape[1])
    offset = values - near.view(shape)
    mean, square = world.means([offset.mean(dims), offset.square().mean(dims)])
    variance = (square - mean.square()).clamp_min(0.0)
    mean = mean + near
    if running:
        with torch.no_grad():
            _follow(layer, mean, variance, world.size * inputs.numel() // inputs.shape[1])
    scale = (variance + layer.eps).rsqrt()
    if layer.affine:
        scale = scale * layer.weight
    result = (values - mean.view(shape)) * scale.view(shape)
    return (result + layer.bias.view(shape) if layer.affine else result).to(inputs.dtype)


def _follow(layer: Any, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics with those of a batch of `count` values per channel."""
    layer.num_batches_tracked += 1
    weight = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, weight)
    layer.running_var.lerp_(variance * (count / max(count - 1, 1)), weight)
