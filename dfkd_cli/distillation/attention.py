"""Attention transfer: how alike two networks distribute their activations over an image (arXiv:1612.03928)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AttentionForm = Literal["sum", "mean"]


def attention(features: Tensor) -> Tensor:
    """Where a feature map is active: [B, C, H, W] -> [B, H * W], each row >= 0 and of length 1.

    The mean over channels of the squares, normalised per sample (arXiv:1612.03928, eq. 2), so that positive factors of
    the map do not matter. A map of zeros gives zeros.
    """
    return F.normalize(features.float().square().mean(dim=1).flatten(1), dim=1)


def attention_transfer(student: Sequence[Tensor], teacher: Sequence[Tensor], form: AttentionForm) -> Tensor:
    """Squared difference of the two attentions, added up over the matched stages: -> [B], 0 where they are equal.

    `form` "sum" adds the positions up: in [0, 2] per stage whatever its size, so that one weight serves every network.
    "mean" averages them, as the published code does with a weight of 1000: in [0, 2 / (H * W)], where small maps count
    the most.
    """
    per_stage = []
    for learner, guide in match_stages(student, teacher):
        difference = (attention(learner) - attention(guide)).square()
        per_stage.append(difference.sum(dim=1) if form == "sum" else difference.mean(dim=1))
    return torch.stack(per_stage).sum(dim=0)


def match_stages(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pairs of feature maps [B, C, H, W] of one size: those that agree in it; without any, from the last backwards.

    In the second case the larger map of a pair is averaged down to the smaller one.
    """
    by_size = {features.shape[2:]: features for features in teacher}
    equal = [(features, by_size[features.shape[2:]]) for features in student if features.shape[2:] in by_size]
    last_first = zip(reversed(student), reversed(teacher), strict=False)
    return equal or [_averaged_down(*pair) for pair in last_first]


def _averaged_down(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    height, width = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    size = (height, width)
    return F.adaptive_avg_pool2d(one, size), F.adaptive_avg_pool2d(other, size)
