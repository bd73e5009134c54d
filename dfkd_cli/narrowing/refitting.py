"""New weights for the layers that read removed channels: least squares keeps their outputs close to the teacher's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.narrowing.layers import Gone
from dfkd_cli.networks.modes import evaluating

ROWS = 24_576  # outputs that a layer is fitted on, at most
RIDGE = 1e-2  # pull towards the present weights, in units of the mean square of the inputs
LARGEST = 8192  # inputs of one output; the solution takes cubic time


def refit(
    teacher: nn.Module,
    student: nn.Module,
    gone: Gone,
    calls: Sequence[str],
    batches: Sequence[Tensor],
    world: World = ALONE,
) -> None:
    """Change the weights of the narrowed student's layers in the order of their calls, in place.

    `batches` of normalised images [B, C, H, W]; the layers are fitted on those of all processes of `world`. Each layer
    is fitted on the outputs of the layers before it, which have their new weights (arXiv:1707.06168, eq. 3), and its
    solution is kept near the present weights. Layers with groups and layers that a network calls several times keep
    their weights.
    """
    layers = dict(student.named_modules())
    rng = torch.Generator().manual_seed(0)
    with evaluating(teacher, student):
        for name in calls:
            if gone.get((name, "in")) and _is_linear_in_patches(layers[name]):
                _refit_layer(teacher, student, name, gone.get((name, "out"), set()), batches, rng, world)


def _is_linear_in_patches(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return layer.in_features <= LARGEST
    if not isinstance(layer, nn.Conv2d) or layer.groups > 1 or isinstance(layer.padding, str):
        return False
    return layer.padding_mode == "zeros" and layer.weight[0].numel() <= LARGEST


def _refit_layer(
    teacher: nn.Module,
    student: nn.Module,
    name: str,
    gone: set[int],
    batches: Sequence[Tensor],
    rng: torch.Generator,
    world: World,
) -> None:
    layer, original = student.get_submodule(name), teacher.get_submodule(name)
    weight: Any = layer.weight
    bias: Any = layer.bias
    present = weight.flatten(1).double()
    kept = [channel for channel in range(len(present) + len(gone)) if channel not in gone]
    size = present.shape[1] + (bias is not None)
    gram, moment = present.new_zeros(size, size), present.new_zeros(size, len(present))
    positions = max(ROWS // (world.size * sum(map(len, batches))), 1)
    for images in batches:
        own, wanted = _calls(student, layer, images), _calls(teacher, original, images)
        if len(own) != 1 or len(wanted) != 1:
            return
        inputs, missing = _patches(layer, *own[0], wanted[0][1], kept, positions, rng)
        if bias is not None:
            inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
        gram += (inputs.mT @ inputs).double()
        moment += (inputs.mT @ missing).double()
    gram, moment = world.sum(gram), world.sum(moment)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    change, failed = torch.linalg.solve_ex(gram, moment)
    if failed or not change.isfinite().all():
        return
    weight.add_(change[: present.shape[1]].mT.view_as(weight))
    if bias is not None:
        bias.add_(change[-1])


def _calls(network: nn.Module, layer: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return input and output, in float32, of each call of a layer."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].float(), output.float())))
    try:
        network(images)
    finally:
        hook.remove()
    return seen


def _patches(
    layer: Any,
    inputs: Tensor,
    outputs: Tensor,
    wanted: Tensor,
    kept: list[int],
    positions: int,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return inputs [N, I] of outputs at random positions, and teacher's minus student's outputs there [N, O]."""
    if isinstance(layer, nn.Linear):
        return inputs.flatten(0, -2), (wanted[..., kept] - outputs).flatten(0, -2)
    height, width = outputs.shape[2:]
    places = torch.randperm(height * width, generator=rng)[:positions].tolist()
    padding, (down, right), (tall, wide) = layer.padding, layer.stride, layer.dilation
    padded = nn.functional.pad(inputs, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = tall * (layer.kernel_size[0] - 1) + 1, wide * (layer.kernel_size[1] - 1) + 1
    windows = []
    for place in places:
        top, left = place // width * down, place % width * right
        windows.append(padded[:, :, top : top + rows : tall, left : left + columns : wide].flatten(1))
    missing = (wanted[:, kept] - outputs).flatten(2)[:, :, places].permute(2, 0, 1)
    return torch.cat(windows), missing.flatten(0, 1)
