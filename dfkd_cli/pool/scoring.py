"""Scores for the images of a pool: pure functions, one value per image, higher is better."""

from collections.abc import Sequence
from hashlib import blake2b

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.networks import NormStatistics
from dfkd_cli.networks.pixels import per_image


def confidence(logits: Tensor) -> Tensor:
    """Return the teacher's largest probability: [B, K] -> [B] in (0, 1]. DFND (CVPR 2021) ranks by it.

    Of logits [B, K, H, W] it is the mean over the pixels.
    """
    return per_image(logits.float().softmax(dim=1).amax(dim=1))


def negative_entropy(logits: Tensor) -> Tensor:
    """Return the negative entropy of the teacher's prediction in nats: [B, K] -> [B] in [-log K, 0]."""
    log_p = F.log_softmax(logits.float(), dim=1)
    return per_image((log_p.exp() * log_p).sum(dim=1))


def by_chance(digests: Sequence[bytes], seed: int) -> Tensor:
    """Return a pseudo-random number in [0, 1) for each image: -> [B]. It is the same for all copies of an image."""
    key = seed.to_bytes(16, "little", signed=True)
    drawn = [blake2b(digest, digest_size=3, key=key).digest() for digest in digests]
    return torch.tensor([int.from_bytes(number, "little") for number in drawn]) / 2**24


def norm_closeness(norm_inputs: Sequence[Tensor], statistics: Sequence[NormStatistics]) -> Tensor:
    """Return the negative squared distance of each image's statistics to those of the BatchNorm layers: -> [B].

    `norm_inputs` are the inputs of the layers, [B, C, ...] each. Per layer the distance is the mean over channels of
    (mean - running mean)^2 + (var - running var)^2; it is summed over the layers.
    """
    distances = []
    for inputs, running in zip(norm_inputs, statistics, strict=True):
        values = inputs.float().flatten(1) if inputs.dim() == 2 else inputs.float().flatten(2)
        mean, var = (values, torch.zeros_like(values)) if inputs.dim() == 2 else _moments(values)
        distances.append(((mean - running.mean).square() + (var - running.var).square()).mean(dim=1))
    return -torch.stack(distances).sum(dim=0)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    var, mean = torch.var_mean(values, dim=2, correction=0)
    return mean, var


def prototype_score(
    embedding: Tensor, confidence: Tensor, classes: Tensor, prototypes: int = 4, iterations: int = 10
) -> Tensor:
    """Return confidence plus closeness to a prototype of the image's class, both standardised.

    [N, D], [N], [N] -> [N]. Prototypes are the centres of k-means within each class on embeddings of length 1; the
    closeness is the cosine to the nearest one.
    """
    directions = F.normalize(embedding.float(), dim=1)
    closeness = torch.zeros_like(confidence)
    for number in classes.unique().tolist():
        members = (classes == number).nonzero().squeeze(1)
        closeness[members] = _cosine_to_nearest_centre(directions[members], prototypes, iterations)
    return _standardised(confidence) + _standardised(closeness)


def _cosine_to_nearest_centre(directions: Tensor, count: int, iterations: int) -> Tensor:
    """Return the cosine to the nearest centre of k-means on the sphere, started from spaced rows: [n, D] -> [n]."""
    spread = torch.linspace(0, len(directions) - 1, min(count, len(directions)), device=directions.device)
    centres = directions[spread.long()]
    for _ in range(iterations):
        nearest = (directions @ centres.T).argmax(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, directions)
        # A centre without members does not move.
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, F.normalize(sums, dim=1), centres)
    return (directions @ centres.T).amax(dim=1)


def _standardised(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std(correction=0).clamp_min(1e-6)
