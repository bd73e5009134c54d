"""What a network returns: logits, what a last softmax or sigmoid made of them, or one number; and the way back."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Returned = Literal["logits", "softmax", "sigmoid", "score", "probability"]

_SUM_TOLERANCE = 5e-3  # half-precision files add up to 1 no better
_SMALLEST_PROBABILITY = 1e-30  # below it a softmax in float32 may have ended in 0
_SURE = 1e-6  # so near to 0 and 1 a sigmoid in float32 still tells values apart
NOTES: dict[Returned, tuple[str, ...]] = {
    "logits": (),
    "softmax": ("The network returns probabilities: their logarithms serve as logits.",),
    "sigmoid": (
        "The network returns numbers from 0 to 1 that do not add up to 1, as a sigmoid does: what came before the "
        "sigmoid serves as logits. The student learns which class is likeliest, not to judge each label by itself.",
    ),
    "score": ("The network returns one number: above 0 it is taken for the second of two classes.",),
    "probability": ("The network returns one number from 0 to 1: the probability of the second of two classes.",),
}


def class_count(outputs: int) -> int:
    """How many classes a network with so many outputs tells apart: one output tells two."""
    return 2 if outputs == 1 else outputs


def tell(returned: Tensor, for_more: Callable[[], Tensor]) -> Returned:
    """What `returned` [B, K] is; `for_more` asks the network again, for inputs many times as large.

    Logits may lie between 0 and 1 by chance, but grow with what causes them.
    """
    if returned.shape[1] == 1:
        return "probability" if _squashed(returned, for_more) else "score"
    if _within(returned) and float((returned.sum(dim=1) - 1.0).abs().max()) < _SUM_TOLERANCE:
        return "softmax"
    return "sigmoid" if _squashed(returned, for_more) else "logits"


def _squashed(returned: Tensor, for_more: Callable[[], Tensor]) -> bool:
    if not _within(returned):
        return False
    more = for_more().float()
    # An untrained last layer may give nothing but zeros.
    return _within(more) and not torch.equal(returned, more)


def _within(values: Tensor) -> bool:
    return bool(((values >= 0.0) & (values <= 1.0)).all())


def to_logits(returned: Tensor, kind: Returned) -> Tensor:
    """Logits [B, K]: exactly those before a sigmoid; those before a softmax up to a constant per image.

    Of one number z they are [0, z], whose softmax is z's sigmoid.
    """
    if kind == "softmax":
        return returned.float().clamp_min(_SMALLEST_PROBABILITY).log()
    logits = returned.float().logit(eps=_SURE) if kind in ("sigmoid", "probability") else returned
    return F.pad(logits, (1, 0)) if kind in ("score", "probability") else logits
