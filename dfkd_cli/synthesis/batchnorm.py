"""The distance of a batch's statistics to the running statistics of a teacher's BatchNorm layers."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.networks import NormStatistics

BatchNormForm = Literal["relative", "kl", "norm"]
Distance = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def channel_moments(inputs: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and population variance per channel of one layer's input: [B, C, ...] -> [C], [C] in float32.

    BatchNorm normalises with the population variance too. Both moments are computed in one pass over the input, which
    dominates the cost of this loss. `shift` [C], an estimate of the mean, prevents cancellation.
    """
    return _moments(*_means(inputs, shift), shift)


def _means(inputs: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of the offsets from `shift` and of their squares: [B, C, ...] -> [C], [C]."""
    dims = [0, *range(2, inputs.dim())]
    offset = inputs.float() - shift.view(1, -1, *[1] * (inputs.dim() - 2))
    return offset.mean(dims), offset.square().mean(dims)


def _moments(mean: Tensor, square: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return mean + shift, (square - mean.square()).clamp_min(0.0)


def gaussian_kl(mean: Tensor, var: Tensor, running_mean: Tensor, running_var: Tensor, eps: float = 1e-5) -> Tensor:
    """Return KL(batch || running) of one Gaussian per channel, averaged over channels: [C] x 4 -> scalar in nats.

    It depends neither on the scale of a channel nor on their number, so that one weight fits every teacher.
    """
    var, running_var = var + eps, running_var + eps
    return 0.5 * ((running_var / var).log() + (var + (mean - running_mean).square()) / running_var - 1.0).mean()


def norm_distance(mean: Tensor, var: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
    """Return ||mean - running mean||_2 + ||var - running var||_2: [C] x 4 -> scalar (arXiv:1912.08795, eq. 4).

    Most papers publish weights for this form. It grows with the number of channels and with their scale.
    """
    return torch.linalg.vector_norm(mean - running_mean) + torch.linalg.vector_norm(var - running_var)


def relative_distance(mean: Tensor, var: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
    """Return `norm_distance` relative to the layer's own statistics: [C] x 4 -> scalar.

    ||mean - running mean||_2 / ||running std||_2 + ||var - running var||_2 / ||running var||_2. It depends neither on
    the scale of the channels nor on their number.
    """
    tiny = torch.finfo(torch.float32).tiny
    shift = torch.linalg.vector_norm(mean - running_mean) / running_var.sum().sqrt().clamp_min(tiny)
    return shift + torch.linalg.vector_norm(var - running_var) / torch.linalg.vector_norm(running_var).clamp_min(tiny)


DISTANCES: dict[BatchNormForm, Distance] = {"relative": relative_distance, "kl": gaussian_kl, "norm": norm_distance}


def batchnorm_loss(
    norm_inputs: Sequence[Tensor], statistics: Sequence[NormStatistics], form: BatchNormForm, world: World = ALONE
) -> Tensor:
    """Return the distance of the batch's statistics to the running ones over all BatchNorm layers: scalar >= 0.

    The forms "relative" and "kl" are averaged over the layers and have a similar size on every teacher. "norm" is
    summed, as published. The batch is that of all processes of `world`.
    """
    pairs = zip(norm_inputs, statistics, strict=True)
    means = world.means([mean for inputs, running in pairs for mean in _means(inputs, running.mean.float())])
    distances = []
    for mean, square, running in zip(means[::2], means[1::2], statistics, strict=True):
        running_mean, running_var = running.mean.float(), running.var.float()
        distances.append(DISTANCES[form](*_moments(mean, square, running_mean), running_mean, running_var))
    total = torch.stack(distances)
    return total.sum() if form == "norm" else total.mean()
