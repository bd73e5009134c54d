"""Attention transfer: the distance of the spatial activation maps of two networks (arXiv:1612.03928)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AttentionForm = Literal["sum", "mean"]


def attention(features: Tensor) -> Tensor:
    """Return the attention map of feature maps: [B, C, H, W] -> [B, H * W], each row >= 0 and of length 1.

    The mean of the squares over channels, normalised per sample (arXiv:1612.03928, eq. 2), so that it does not depend
    on the scale of the feature map. A map of zeros gives zeros.
    """
    return F.normalize(features.float().square().mean(dim=1).flatten(1), dim=1)


def attention_transfer(student: Sequence[Tensor], teacher: Sequence[Tensor], form: AttentionForm) -> Tensor:
    """Return the squared difference of the attention maps, summed over the matched stages: -> [B] >= 0.

    `form` "sum" adds up the positions: in [0, 2] per stage, independent of its size, so that one weight fits every
    network. "mean" averages them, as the published code does with a weight of 1000: in [0, 2 / (H * W)], so that small
    maps have the largest influence.
    """
    per_stage = []
    for of_student, of_teacher in match_stages(student, teacher):
        difference = (attention(of_student) - attention(of_teacher)).square()
        per_stage.append(difference.sum(dim=1) if form == "sum" else difference.mean(dim=1))
    return torch.stack(per_stage).sum(dim=0)


def match_stages(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of feature maps [B, C, H, W] of student and teacher with equal height and width.

    These are the maps whose sizes agree. When none agree, maps are paired from the last one backwards, and the larger
    map of each pair is averaged down to the size of the smaller one.
    """
    by_size = {features.shape[2:]: features for features in teacher}
    equal = [(features, by_size[features.shape[2:]]) for features in student if features.shape[2:] in by_size]
    last_first = zip(reversed(student), reversed(teacher), strict=False)
    return equal or [_averaged_down(*pair) for pair in last_first]


def _averaged_down(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    height, width = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    size = (height, width)
    return F.adaptive_avg_pool2d(one, size), F.adaptive_avg_pool2d(other, size)
