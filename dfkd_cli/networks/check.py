"""Trial forward of a loaded network on noise."""

from typing import NamedTuple

import torch
from torch import Tensor

from dfkd_cli.errors import DfkdError, TeacherError
from dfkd_cli.networks.base import Network
from dfkd_cli.networks.fixed_batch import TOLERANCE, largest_difference, last_line
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.returned import NOTES, Returned, identify_outputs
from dfkd_cli.tasks import TASKS, Task, TaskName, task_of

BATCH = 4
INPUT_SCALE = 1e4  # factor between the two inputs that distinguish logits from probabilities
RANDOM = "The network gives different outputs for the same images: part of it is random."


class ForwardCheck(NamedTuple):
    """Result of a trial forward."""

    outputs: int  # per answer
    task: Task
    returned: Returned
    notes: tuple[str, ...]  # remarks for the user, one sentence each


def check_forward(network: Network, size: tuple[int, int, int], task: TaskName | None = None) -> ForwardCheck:
    """Run the network on noise of size (C, H, W) and return the form of its outputs.

    The shape of the logits shows the task unless `task` names it. Raises TeacherError when the forward fails, or its
    result is not finite, not of the shape of a task or not floating point.
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
    found = _check_logits(logits, shape, task)
    with torch.no_grad():
        returned = identify_outputs(logits.float(), lambda: network(INPUT_SCALE * images))
        random = largest_difference(network(images), logits) > TOLERANCE
    return ForwardCheck(logits.shape[1], found, returned, (*NOTES[returned], *((RANDOM,) if random else ())))


def _check_logits(logits: Tensor, shape: str, wanted: TaskName | None) -> Task:
    task = task_of(logits, BATCH)
    if task is None or (wanted is not None and task.name != wanted):
        allowed = [TASKS[wanted]] if wanted is not None else list(TASKS.values())
        shapes = " or ".join(f"{each.shape.format(batch=BATCH)} ({each.name})" for each in allowed)
        raise TeacherError(
            f"the network returns {list(logits.shape)} for {BATCH} images of {shape}, but logits must have the shape "
            f"{shapes}; give its true size with --input-size CxHxW, or name another output with --output"
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
    return task


def input_gradient_reaches(network: Network, size: tuple[int, int, int]) -> bool:
    """Return whether autograd connects the logits to the images; archives optimised for inference can break this."""
    with torch.enable_grad():
        return network(noise(network, BATCH, size).requires_grad_()).requires_grad
