"""The inputs of layers that a narrowed student shares with its teacher: targets beside what a method teaches."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dfkd_cli.distillation.alignment import relative_error
from dfkd_cli.narrowing.groups import NARROWED, Structure
from dfkd_cli.narrowing.share import Removal
from dfkd_cli.networks.layer_sizes import is_depthwise
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.world.world import ALONE, World


def shared_inputs(module: nn.Module, images: Tensor, structure: Structure, removal: Removal) -> tuple[str, ...]:
    """Return the layers whose inputs keep their channels, one per input tensor, without those that read the images.

    In a residual network without its inner channels these are the outputs of all blocks.
    """
    touched = {
        member.layer for place in {place for place, _ in removal} for member in _readers(module, structure, place)
    }
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, NARROWED)}
    found: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            known = any(inputs[0].data_ptr() == other.data_ptr() for other in found.values())
            if name not in touched and not known and inputs[0].data_ptr() != images.data_ptr():
                found[name] = inputs[0]

        return hook

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    try:
        with evaluating(module):
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(found)


def _readers(module: nn.Module, structure: Structure, place: int):
    layers = dict(module.named_modules())
    for member in structure.groups[place].members:
        if member.side == "in" or is_depthwise(layers[member.layer]):
            yield member


def block_error(student: Sequence[Tensor], teacher: Sequence[Tensor], world: World = ALONE) -> Tensor:
    """Return the mean over blocks of the squared error in units of the teacher's mean square: a scalar >= 0."""
    pairs = zip(student, teacher, strict=True)
    return torch.stack([relative_error(own, target, world).mean() for own, target in pairs]).mean()
