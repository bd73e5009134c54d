"""Layer inputs of the teacher that a narrowed student imitates: targets beside what a method teaches."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.narrowing.groups import NARROWED, ChannelGroup, Member, Structure
from dfkd_cli.narrowing.layers import Gone, kept_channels, removed_channels
from dfkd_cli.narrowing.share import Removal
from dfkd_cli.networks.layer_sizes import is_depthwise
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.training.distillation.alignment import relative_error

LONGEST_BLOCK = 4  # inputs inside of a block, such as those of an inverted residual with squeeze and excitation


class SharedInput(NamedTuple):
    """The input of a layer, as far as teacher and narrowed student share it."""

    layer: str
    axis: int  # of the channels
    kept: Tensor | None  # [C] of the teacher's channels that the student keeps; None: all

    def to(self, device: torch.device) -> "SharedInput":
        """Return the same with its tensor on a device."""
        return self if self.kept is None else self._replace(kept=self.kept.to(device))


def shared_inputs(module: nn.Module, images: Tensor, structure: Structure, removal: Removal) -> tuple[SharedInput, ...]:
    """Return one layer per input tensor, in the order of the calls, without those that read the images.

    These are the inputs that keep their channels, and those whose channels a residual connection carries: the outputs
    of blocks. The channels inside of blocks are free to change. Where more than `LONGEST_BLOCK` layers follow each
    other without such an input, and in networks without any, all of their inputs count, without the removed channels.
    Layers that are called several times have no input of their own.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, NARROWED)}
    calls: list[tuple[str, Tensor]] = []
    hooks = [layer.register_forward_pre_hook(_noting(name, calls)) for name, layer in layers.items()]
    try:
        with evaluating(module):
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(name for name, _ in calls)
    first: dict[int, tuple[str, Tensor]] = {}
    for name, inputs in calls:
        if times[name] == 1 and inputs.shape != images.shape:  # a network can normalise its images
            first.setdefault(inputs.data_ptr(), (name, inputs))
    gone = removed_channels(structure, removal)
    shared = [_shared(name, layers[name], inputs, gone) for name, inputs in first.values()]
    inner = {member.layer for group in structure.groups if group.inner for member in _readers(layers, group)}
    free = [one.kept is not None and one.layer in inner for one in shared]
    longest = 0 if all(free) else LONGEST_BLOCK
    stretches = [
        (inside, list(inputs)) for inside, inputs in groupby(zip(free, shared, strict=True), key=itemgetter(0))
    ]
    kept = [inputs for inside, inputs in stretches if not inside or len(inputs) > longest]
    return tuple(one for inputs in kept for _, one in inputs)


def _noting(name: str, calls: list[tuple[str, Tensor]]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda layer, inputs: calls.append((name, inputs[0]))


def _readers(layers: Mapping[str, nn.Module], group: ChannelGroup) -> Iterator[Member]:
    for member in group.members:
        if member.side == "in" or (member.layer in layers and is_depthwise(layers[member.layer])):
            yield member


def _shared(name: str, layer: nn.Module, inputs: Tensor, gone: Gone) -> SharedInput:
    axis = inputs.ndim - 1 if isinstance(layer, nn.Linear) else 1
    lost = gone.get((name, "out" if is_depthwise(layer) else "in"))
    return SharedInput(name, axis, kept_channels(inputs.shape[axis], lost, inputs.device) if lost else None)


def block_error(
    shared: Sequence[SharedInput], student: Sequence[Tensor], teacher: Sequence[Tensor], world: World = ALONE
) -> Tensor:
    """Return the mean over inputs of the squared error in units of the teacher's mean square: a scalar >= 0.

    Channels that the student loses, or has lost, do not count.
    """
    errors = []
    for (_, axis, kept), own, target in zip(shared, student, teacher, strict=True):
        if kept is not None:
            target = target.index_select(axis, kept)
            own = own if own.shape == target.shape else own.index_select(axis, kept)
        errors.append(relative_error(own, target, world).mean())
    return torch.stack(errors).mean()
