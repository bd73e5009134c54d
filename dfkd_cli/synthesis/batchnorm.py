"""How far a batch of images is from what a teacher's BatchNorm layers remember of its training data."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from dfkd_cli.networks import NormStatistics

BatchNormForm = Literal["relative", "kl", "norm"]
Distance = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def channel_moments(inputs: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance per channel, each [C] in float32, of one layer's input [B, C, ...].

    Population variance, because that is what BatchNorm itself normalises with. Both moments come from one pass over the
    input, which is what this loss costs; `shift` [C], any guess of the mean, keeps the difference of squares exact.
    """
    dims = [0, *range(2, inputs.dim())]
    offset = inputs.float() - shift.view(1, -1, *[1] * (inputs.dim() - 2))
    mean = offset.mean(dims)
    return mean + shift, (offset.square().mean(dims) - mean.square()).clamp_min(0.0)


def gaussian_kl(mean: Tensor, var: Tensor, running_mean: Tensor, running_var: Tensor, eps: float = 1e-5) -> Tensor:
    """KL(batch || running) of the two Gaussians of every channel, averaged over channels: [C] x 4 -> scalar in nats.

    It does not depend on the scale of a channel or on their number, so one weight serves every teacher.
    """
    var, running_var = var + eps, running_var + eps
    return 0.5 * ((running_var / var).log() + (var + (mean - running_mean).square()) / running_var - 1.0).mean()


def norm_distance(mean: Tensor, var: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
    """||mean - running mean||_2 + ||var - running var||_2: [C] x 4 -> scalar (arXiv:1912.08795, eq. 4).

    The form most papers publish their weights for. Its size grows with the channels and their scale.
    """
    return torch.linalg.vector_norm(mean - running_mean) + torch.linalg.vector_norm(var - running_var)


def relative_distance(mean: Tensor, var: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
    """||mean - running mean||_2 / ||running std||_2 + ||var - running var||_2 / ||running var||_2: [C] x 4 -> scalar.

    The published norms measured in units of the layer itself: neither the channels' scale nor their number matters.
    """
    tiny = torch.finfo(torch.float32).tiny
    shift = torch.linalg.vector_norm(mean - running_mean) / running_var.sum().sqrt().clamp_min(tiny)
    return shift + torch.linalg.vector_norm(var - running_var) / torch.linalg.vector_norm(running_var).clamp_min(tiny)


DISTANCES: dict[BatchNormForm, Distance] = {"relative": relative_distance, "kl": gaussian_kl, "norm": norm_distance}


def batchnorm_loss(norm_inputs: Sequence[Tensor], statistics: Sequence[NormStatistics], form: BatchNormForm) -> Tensor:
    """Distance between the batch's statistics and the running ones over all BatchNorm layers: a scalar >= 0.

    `form` "relative" and "kl" are means over layers, the same size on every teacher; "norm" is the sum, as published.
    """
    distances = []
    for inputs, running in zip(norm_inputs, statistics, strict=True):
        running_mean, running_var = running.mean.float(), running.var.float()
        distances.append(DISTANCES[form](*channel_moments(inputs, running_mean), running_mean, running_var))
    total = torch.stack(distances)
    return total.sum() if form == "norm" else total.mean()
