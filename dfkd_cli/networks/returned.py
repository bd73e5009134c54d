"""Forms of a network's outputs (logits, probabilities, a single number), and their conversion to logits."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Returned = Literal["logits", "softmax", "sigmoid", "score", "probability"]

_SUM_TOLERANCE = 5e-3  # sums of half-precision probabilities differ from 1 by this much
_SMALLEST_PROBABILITY = 1e-30  # a float32 softmax can underflow to 0 below it
_SIGMOID_MARGIN = 1e-6  # distance from 0 and 1 at which a float32 sigmoid is still invertible
NOTES: dict[Returned, tuple[str, ...]] = {
    "logits": (),
    "softmax": ("The network returns probabilities: their logarithms are used as logits.",),
    "sigmoid": (
        "The network returns numbers from 0 to 1 that do not add up to 1, as a sigmoid does: the inputs of the sigmoid "
        "are used as logits. The student learns to predict the likeliest class, not each label independently.",
    ),
    "score": ("The network returns one number: values above 0 are taken as the second of two classes.",),
    "probability": ("The network returns one number from 0 to 1: the probability of the second of two classes.",),
}


def class_count(outputs: int) -> int:
    """Return the number of classes of a network with `outputs` outputs per image; one output means two classes."""
    return 2 if outputs == 1 else outputs


def identify_outputs(returned: Tensor, for_scaled_inputs: Callable[[], Tensor]) -> Returned:
    """Return the form of the outputs `returned` [B, K] or [B, K, H, W].

    `for_scaled_inputs` computes the outputs for the same inputs times a large factor: logits can be in [0, 1] by
    chance, but grow with the inputs.
    """
    if returned.shape[1] == 1:
        return "probability" if _squashed(returned, for_scaled_inputs) else "score"
    if _in_unit_range(returned) and float((returned.sum(dim=1) - 1.0).abs().max()) < _SUM_TOLERANCE:
        return "softmax"
    return "sigmoid" if _squashed(returned, for_scaled_inputs) else "logits"


def _squashed(returned: Tensor, for_scaled_inputs: Callable[[], Tensor]) -> bool:
    if not _in_unit_range(returned):
        return False
    scaled = for_scaled_inputs().float()
    # An untrained last layer can return only zeros.
    return _in_unit_range(scaled) and not torch.equal(returned, scaled)


def _in_unit_range(values: Tensor) -> bool:
    return bool(((values >= 0.0) & (values <= 1.0)).all())


def to_logits(returned: Tensor, kind: Returned) -> Tensor:
    """Return the logits of outputs of this form, [B, K] or [B, K, H, W].

    They equal the inputs of a sigmoid, and those of a softmax up to a constant per image. A single number z becomes
    [0, z], whose softmax is the sigmoid of z.
    """
    if kind == "softmax":
        return returned.float().clamp_min(_SMALLEST_PROBABILITY).log()
    logits = returned.float().logit(eps=_SIGMOID_MARGIN) if kind in ("sigmoid", "probability") else returned
    if kind not in ("score", "probability"):
        return logits
    return F.pad(logits, (*(0, 0) * (logits.ndim - 2), 1, 0))
