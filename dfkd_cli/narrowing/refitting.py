"""New weights for the layers that read removed channels: least squares keeps their outputs close to the teacher's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.narrowing.layers import Gone
from dfkd_cli.networks.modes import evaluating

ROWS = 24_576  # outputs that a layer is fitted on, at most
RIDGE = 1e-2  # pull towards the present weights, in units of the mean square of the inputs
LARGEST = 8192  # inputs of one output; the solution takes cubic time
KEPT_BYTES = 2**28  # of the teacher's outputs; layers that need more are recorded in several passes


class _Outputs(NamedTuple):
    """Outputs of one call of a teacher's layer."""

    places: list[int]  # positions in the map, row by row; empty for a linear layer
    rows: Tensor  # [N, O] of the channels that the student has


class _Reached(Exception):  # noqa: N818 - not an error
    """A forward pass has computed the layer that it was for."""


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
    names = [name for name in calls if gone.get((name, "in")) and _is_linear_in_patches(layers[name])]
    positions = max(ROWS // (world.size * sum(map(len, batches))), 1)
    rng = torch.Generator().manual_seed(0)
    with evaluating(teacher, student):
        for some in _groups(names, layers):
            kept = {name: _kept(layers[name], gone.get((name, "out"), set())) for name in some}
            wanted = _record(teacher, kept, batches, positions, rng)
            for name in some:
                if len(wanted[name]) == len(batches):
                    _refit_layer(student, layers[name], wanted[name], batches, world)


def _is_linear_in_patches(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return layer.in_features <= LARGEST
    if not isinstance(layer, nn.Conv2d) or layer.groups > 1 or isinstance(layer.padding, str):
        return False
    return layer.padding_mode == "zeros" and layer.weight[0].numel() <= LARGEST


def _groups(names: Sequence[str], layers: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the layers in groups, in their order, whose outputs need about KEPT_BYTES."""
    group: list[str] = []
    needed = 0
    for name in names:
        own = 4 * ROWS * len(layers[name].weight)
        if group and needed + own > KEPT_BYTES:
            yield group
            group, needed = [], 0
        group.append(name)
        needed += own
    if group:
        yield group


def _kept(layer: Any, gone: set[int]) -> list[int]:
    return [channel for channel in range(len(layer.weight) + len(gone)) if channel not in gone]


def _record(
    teacher: nn.Module,
    kept: Mapping[str, list[int]],
    batches: Sequence[Tensor],
    positions: int,
    rng: torch.Generator,
) -> dict[str, list[_Outputs]]:
    """Return the outputs of the teacher's layers, one per call, at `positions` random places of their maps."""
    recorded: dict[str, list[_Outputs]] = {name: [] for name in kept}

    def keep(name: str) -> Any:
        def hook(layer: nn.Module, _: Any, output: Tensor) -> None:
            of_map = isinstance(layer, nn.Conv2d)
            places = torch.randperm(output[0, 0].numel(), generator=rng)[:positions].tolist() if of_map else []
            recorded[name].append(_Outputs(places, _rows(output, places)[:, kept[name]]))

        return hook

    hooks = [teacher.get_submodule(name).register_forward_hook(keep(name)) for name in kept]
    try:
        for images in batches:
            teacher(images)
    finally:
        for hook in hooks:
            hook.remove()
    return recorded


def _refit_layer(
    student: nn.Module, layer: Any, wanted: Sequence[_Outputs], batches: Sequence[Tensor], world: World
) -> None:
    weight: Any = layer.weight
    bias: Any = layer.bias
    present = weight.flatten(1).double()
    size = present.shape[1] + (bias is not None)
    gram, moment = present.new_zeros(size, size), present.new_zeros(size, len(present))
    for images, (places, rows) in zip(batches, wanted, strict=True):
        inputs, outputs = _call(student, layer, images)
        missing = rows - _rows(outputs, places)
        inputs = _patches(layer, inputs.float(), outputs.shape[-1], places)
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


def _call(network: nn.Module, layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return input and output of the layer's first call; what follows it is not computed."""
    seen: list[tuple[Tensor, Tensor]] = []

    def stop(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0], output))
        raise _Reached

    hook = layer.register_forward_hook(stop)
    try:
        network(images)
    except _Reached:
        pass
    finally:
        hook.remove()
    return seen[0]


def _rows(outputs: Tensor, places: list[int]) -> Tensor:
    """Return outputs as [N, O], in float32: [B, O, H, W] at the places, one place after the other, or [..., O]."""
    if not places:
        return outputs.float().flatten(0, -2)
    return outputs.flatten(2)[:, :, places].float().permute(2, 0, 1).flatten(0, 1)


def _patches(layer: Any, inputs: Tensor, width: int, places: list[int]) -> Tensor:
    """Return the inputs [N, I] of the outputs that `_rows` returns from maps of this width."""
    if not places:
        return inputs.flatten(0, -2)
    padding, (down, right), (tall, wide) = layer.padding, layer.stride, layer.dilation
    padded = nn.functional.pad(inputs, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = tall * (layer.kernel_size[0] - 1) + 1, wide * (layer.kernel_size[1] - 1) + 1
    windows = []
    for place in places:
        top, left = place // width * down, place % width * right
        windows.append(padded[:, :, top : top + rows : tall, left : left + columns : wide].flatten(1))
    return torch.cat(windows)
