"""Trial forward of a loaded network on noise."""

from typing import NamedTuple

import torch
from torch import Tensor

from dfkd_cli.errors import DfkdError, TeacherError
from dfkd_cli.networks.base import Network
from dfkd_cli.networks.fixed_batch import TOLERANCE, largest_difference, last_line
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.returned import NOTES, Returned, identify_outputs

BATCH = 4
INPUT_SCALE = 1e4  # factor between the two inputs that distinguish logits from probabilities
RANDOM = "The network gives different outputs for the same images: part of it is random."


class ForwardCheck(NamedTuple):
    """Result of a trial forward."""

    outputs: int  # per image
    returned: Returned
    notes: tuple[str, ...]  # remarks for the user, one sentence each


def check_forward(network: Network, size: tuple[int, int, int]) -> ForwardCheck:
    """Run the network on noise of size (C, H, W) and return the form of its outputs.

    Raises TeacherError when the forward fails, or its result is not finite, not of shape [B, K] or not floating point.
    """
    shape = "x".join(str(length) for length in size)
    try:
        with torch.no_grad():
            images = noise(network, BATCH, size)
            logits = network(images)
    except DfkdError:
        raise
    except Exception as error:  # a network from outside can raise anything
        raise TeacherError(
            f"the network fails on noise of {shape}: {last_line(error)}; give its true size with --input-size CxHxW"
        ) from error
    _check_logits(logits, shape)
    with torch.no_grad():
        returned = identify_outputs(logits.float(), lambda: network(INPUT_SCALE * images))
        random = largest_difference(network(images), logits) > TOLERANCE
    return ForwardCheck(logits.shape[1], returned, (*NOTES[returned], *((RANDOM,) if random else ())))


def _check_logits(logits: Tensor, shape: str) -> None:
    if logits.ndim != 2 or logits.shape[0] != BATCH or logits.shape[1] < 1:
        raise TeacherError(
            f"the network returns {list(logits.shape)} for {BATCH} images of {shape}, but logits must have the shape "
            f"[{BATCH}, classes]; if it is a classifier, give its true size with --input-size CxHxW"
        )
    if not logits.is_floating_point():
        raise TeacherError(
            f"the network returns whole numbers ({str(logits.dtype).removeprefix('torch.')}), such as class indices, "
            "instead of logits or probabilities; export it without its last step"
        )
    if not torch.isfinite(logits).all():
        raise TeacherError(
            f"the network's outputs on noise of {shape} are not finite: its weights are damaged; copy or download it "
            "again"
        )


def input_gradient_reaches(network: Network, size: tuple[int, int, int]) -> bool:
    """Return whether autograd connects the logits to the images; archives optimised for inference can break this."""
    with torch.enable_grad():
        return network(noise(network, BATCH, size).requires_grad_()).requires_grad
