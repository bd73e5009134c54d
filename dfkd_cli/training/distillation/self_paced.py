"""Self-paced learning: weights of samples by their loss and a threshold.

Each weight v* is the v in [0, 1] that minimises v * loss + g(v; lambda), where g is the regulariser of the same form
(arXiv:2208.13648): -lambda v for "hard", lambda (v^2 - 2 v) / 2 for "soft", mu log mu + v log v - lambda v with
mu = 1 + e^-lambda - v for "log". The threshold lambda grows over the training, so that hard samples get weight late.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Pacing = Literal["none", "hard", "soft", "log"]


def self_paced_weight(loss: Tensor, threshold: float, pacing: Pacing) -> Tensor:
    """Return v* in [0, 1] of losses >= 0 of any shape, without gradients; all 1 with pacing "none"."""
    return WEIGHTS[pacing](loss.detach(), threshold)


def hard_weight(loss: Tensor, threshold: float) -> Tensor:
    """Return 1 below the threshold, 0 from there on."""
    return (loss < threshold).to(loss.dtype)


def soft_weight(loss: Tensor, threshold: float) -> Tensor:
    """Return 1 at loss 0, 0 from the threshold on, and linear values between."""
    return (1.0 - loss / threshold).clamp_min(0.0)


def log_weight(loss: Tensor, threshold: float) -> Tensor:
    """Return (1 + e^-lambda) / (1 + e^(loss - lambda)): 1 at loss 0, half of the numerator at the threshold."""
    return (1.0 + math.exp(-threshold)) * torch.sigmoid(threshold - loss)


WEIGHTS: dict[Pacing, Callable[[Tensor, float], Tensor]] = {
    "none": lambda loss, _: torch.ones_like(loss),
    "hard": hard_weight,
    "soft": soft_weight,
    "log": log_weight,
}
