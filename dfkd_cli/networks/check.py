"""The trial before any training: does the network give finite logits for images of this size?"""

from typing import NamedTuple

import torch
from torch import Tensor

from dfkd_cli.errors import DfkdError, TeacherError
from dfkd_cli.networks.base import Network
from dfkd_cli.networks.fixed_batch import TOLERANCE, largest_difference, last_line
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.returned import NOTES, Returned, tell

BATCH = 4
MANY_TIMES = 1e4
RANDOM = "The network answers the same images differently each time: part of it is random."


class Tried(NamedTuple):
    """What a forward on noise tells of a network."""

    outputs: int  # per image
    returned: Returned
    notes: tuple[str, ...]  # what the user should know of it, one sentence each


def check_forward(network: Network, size: tuple[int, int, int]) -> Tried:
    """What a forward on noise of size (C, H, W) tells.

    Raises TeacherError when the forward fails, or its result is not finite, not of shape [B, K] or not of real numbers.
    """
    shape = "x".join(str(length) for length in size)
    try:
        with torch.no_grad():
            images = noise(network, BATCH, size)
            logits = network(images)
    except DfkdError:
        raise
    except Exception as error:  # a stranger's network can raise anything
        raise TeacherError(
            f"the network fails on noise of {shape}: {last_line(error)}; give its true size with --input-size CxHxW"
        ) from error
    _check_logits(logits, shape)
    with torch.no_grad():
        returned = tell(logits.float(), lambda: network(MANY_TIMES * images))
        random = largest_difference(network(images), logits) > TOLERANCE
    return Tried(logits.shape[1], returned, (*NOTES[returned], *((RANDOM,) if random else ())))


def _check_logits(logits: Tensor, shape: str) -> None:
    if logits.ndim != 2 or logits.shape[0] != BATCH or logits.shape[1] < 1:
        raise TeacherError(
            f"the network returns {list(logits.shape)} for {BATCH} images of {shape} where logits of shape "
            f"[{BATCH}, classes] are needed: if it is a classifier, give its true size with --input-size CxHxW"
        )
    if not logits.is_floating_point():
        raise TeacherError(
            f"the network returns whole numbers ({str(logits.dtype).removeprefix('torch.')}), as one that names the "
            "class does: logits or probabilities are needed, so export it without its last step"
        )
    if not torch.isfinite(logits).all():
        raise TeacherError(f"the network's outputs on noise of {shape} are not finite: its weights are damaged")


def input_gradient_reaches(network: Network, size: tuple[int, int, int]) -> bool:
    """Whether the logits depend on the images in a way autograd sees: archives optimised for inference may not."""
    with torch.enable_grad():
        return network(noise(network, BATCH, size).requires_grad_()).requires_grad
