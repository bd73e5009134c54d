"""Tensors of a network without the removed channels."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from dfkd_cli.narrowing.groups import Structure
from dfkd_cli.narrowing.share import Removal
from dfkd_cli.networks.layer_sizes import channel_axes

Gone = dict[tuple[str, Literal["in", "out"]], set[int]]  # (layer, side) -> the layer's removed channels


def removed_channels(structure: Structure, removal: Removal) -> Gone:
    """Return which channels every layer loses when these channels of its groups are removed."""
    by_group: dict[int, set[int]] = {}
    for place, channel in removal:
        by_group.setdefault(place, set()).add(channel)
    gone: Gone = {}
    for place, channels in by_group.items():
        for member in structure.groups[place].members:
            pairs = zip(member.index.tolist(), member.channels.tolist(), strict=True)
            gone.setdefault((member.layer, member.side), set()).update(own for own, of in pairs if of in channels)
    return gone


def narrowed(module: nn.Module, values: Mapping[str, Tensor], gone: Gone) -> dict[str, Tensor]:
    """Return tensors of the module, by their names in its state dict, without the removed channels."""
    layers = dict(module.named_modules())
    left = {}
    for name, value in values.items():
        layer = name.rpartition(".")[0]
        for side, axis in channel_axes(layers[layer], value).items():
            if lost := gone.get((layer, side)):
                value = value.index_select(axis, kept_channels(value.shape[axis], lost, value.device))
        left[name] = value
    return left


def kept_channels(length: int, gone: set[int], device: torch.device) -> Tensor:
    """Return the channels [C] out of `length` that are left without those in `gone`."""
    return torch.tensor([place for place in range(length) if place not in gone], device=device)
