"""Trial forward of a loaded network on noise."""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from dfkd_cli.errors import DfkdError, TeacherError, is_out_of_memory
from dfkd_cli.networks.base import Network
from dfkd_cli.networks.fixed_batch import TOLERANCE, largest_difference
from dfkd_cli.networks.forward_error import ForwardError, failed_forward
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.returned import NOTES, Returned, identify_outputs
from dfkd_cli.networks.tasks import TASKS, Task, TaskName, task_of

BATCH = 4
INPUT_SCALE = 1e4  # factor between the two inputs that distinguish logits from probabilities
RANDOM = "The network gives different outputs for the same images: part of it is random."
NOT_NEGATIVE = (
    "The network's outputs are finite only where its inputs are not negative, as with a root or a logarithm of the "
    "pixels: a mean above 0 can be wrong; check with --mean and --std."
)


class ForwardCheck(NamedTuple):
    """Result of a trial forward."""

    outputs: int  # per answer
    task: Task
    returned: Returned
    notes: tuple[str, ...]  # remarks for the user, one sentence each


def check_forward(network: Network, size: tuple[int, int, int], task: TaskName | None = None) -> ForwardCheck:
    """Run the network on noise of size (C, H, W) and return the form of its outputs.

    The shape of the logits shows the task unless `task` names it. Raises ForwardError when the forward fails or its
    result is not of the shape of a task, and TeacherError when the result is not floating point or not finite.
    """
    notes = []
    with torch.no_grad():
        images = noise(network, BATCH, size)
        logits, found = forward_on_noise(network, images, task)
        if not torch.isfinite(logits).all():
            images = images.abs()
            logits, found = forward_on_noise(network, images, task)
            notes.append(NOT_NEGATIVE)
        if not torch.isfinite(logits).all():
            raise _not_finite(network, size)
        returned = identify_outputs(logits.float(), lambda: network(INPUT_SCALE * images))
        random = largest_difference(network(images.clone()), logits) > TOLERANCE
    notes += [*NOTES[returned], *([RANDOM] if random else [])]
    return ForwardCheck(logits.shape[1], found, returned, tuple(notes))


def forward_on_noise(network: Network, images: Tensor, wanted: TaskName | None = None) -> tuple[Tensor, Task]:
    """Return the logits of `images` and their task; raises errors like `check_forward`, except for infinite logits."""
    size = tuple(images.shape[1:])
    try:
        logits = network(images.clone())  # some networks change their input in place
    except DfkdError:
        raise
    except Exception as error:  # a network from outside can raise anything
        if is_out_of_memory(error):
            raise
        raise failed_forward(size, error) from error
    if not logits.is_floating_point():
        raise TeacherError(
            f"the network returns whole numbers ({str(logits.dtype).removeprefix('torch.')}), such as class indices, "
            "instead of logits or probabilities; export it without its last step"
        )
    batch = len(images)
    task = task_of(logits, batch)
    if task is None or (wanted is not None and task.name != wanted):
        allowed = [TASKS[wanted]] if wanted is not None else list(TASKS.values())
        shapes = " or ".join(f"{each.shape.format(batch=batch)} ({each.name})" for each in allowed)
        raise ForwardError(
            f"the network returns {list(logits.shape)} for {batch} images of {'x'.join(map(str, size))}, but logits "
            f"must have the shape {shapes}",
            ran=True,
        )
    return logits, task


def _not_finite(network: Network, size: tuple[int, int, int]) -> TeacherError:
    what = f"the network's outputs on noise of {'x'.join(map(str, size))} are not finite"
    weights = list(network.state_dict().values())
    if any(bool(weight.isnan().any()) for weight in weights if weight.is_floating_point()):
        return TeacherError(f"{what}: its weights are damaged; copy or download it again")
    return TeacherError(
        f"{what}, although none of its weights is NaN: its forward divides by zero or overflows, as float16 does above "
        "65504; export it in float32"
    )


def input_gradient_reaches(network: Network, size: tuple[int, int, int]) -> bool:
    """Return whether autograd connects the logits to the images; archives optimised for inference can break this."""
    images = noise(network, BATCH, size).requires_grad_()
    with torch.enable_grad():
        logits = network(images.clone())  # which a network can change in place, unlike a leaf of the graph
        if not logits.requires_grad:
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of operations without a derivative
                (gradient,) = torch.autograd.grad(logits.sum(), images, allow_unused=True)
        except RuntimeError:  # of an operation without a derivative
            return False
    return gradient is not None
