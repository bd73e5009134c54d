"""Channels that only go together: those of one group of a grouped convolution or of a GroupNorm."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.narrowing.groups import ChannelGroup, Member
from dfkd_cli.networks.layer_sizes import is_depthwise, is_grouped


def tied(groups: Sequence[ChannelGroup], layers: dict[str, nn.Module]) -> tuple[list[ChannelGroup], list[str]]:
    """Return the groups with channels tied together, and one sentence for each group that has to stay whole.

    The channels that a grouped convolution reads and those that it writes become one group, whose "channels" are the
    groups of the convolution. A group with a GroupNorm is divided in the same way.
    """
    left, fixed = [], []
    for joined in _joined(groups, layers):
        tying = [name for name in dict.fromkeys(member.layer for member in joined.members) if _ties(layers[name])]
        if not tying:
            left.append(joined)
        elif (part := next((name for name in tying if not _covered(joined, name, layers[name])), None)) is not None:
            fixed.append(f"{joined.root}: the groups of {part} have channels that have to stay")
        elif (units := _units(joined, {name: layers[name] for name in tying})).max() == 0:
            fixed.append(f"{joined.root}: {tying[0]} mixes all of these channels")
        else:
            members = tuple(member._replace(channels=units[member.channels]) for member in joined.members)
            left.append(replace(joined, size=int(units.max()) + 1, members=members))
    return left, fixed


def _ties(layer: nn.Module) -> bool:
    return isinstance(layer, nn.GroupNorm) or (is_grouped(layer) and not is_depthwise(layer))


def _joined(groups: Sequence[ChannelGroup], layers: dict[str, nn.Module]) -> list[ChannelGroup]:
    """Return the groups, those on the two sides of a grouped convolution as one group with all their channels."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        for member in group.members:
            if _ties(layers[member.layer]):
                places[member.layer].append(place)
    first = list(range(len(groups)))
    for together in places.values():
        lowest, old = min(first[place] for place in together), {first[place] for place in together}
        first = [lowest if number in old else number for number in first]
    sets: dict[int, list[ChannelGroup]] = defaultdict(list)
    for place, group in zip(first, groups, strict=True):
        sets[place].append(group)
    return [_one(together) for together in sets.values()]


def _one(groups: list[ChannelGroup]) -> ChannelGroup:
    members: list[Member] = []
    size = 0
    for group in groups:
        members += [member._replace(channels=member.channels + size) for member in group.members]
        size += group.size
    return replace(groups[0], size=size, members=tuple(members))


def _covered(group: ChannelGroup, name: str, layer: Any) -> bool:
    """Return whether the group holds all channels that a layer reads and writes."""
    lengths = {"out": _length(layer, "out")} | ({} if isinstance(layer, nn.GroupNorm) else {"in": layer.in_channels})
    return all(
        sum(len(member.index) for member in group.members if (member.layer, member.side) == (name, side)) == length
        for side, length in lengths.items()
    )


def _length(layer: Any, side: str) -> int:
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels
    return layer.out_channels if side == "out" else layer.in_channels


def _units(group: ChannelGroup, tying: dict[str, nn.Module]) -> Tensor:
    """Return the number of the set that each channel of the group belongs to: [size], from 0, without gaps."""
    labels = torch.arange(group.size)
    parts = []
    for member in group.members:
        layer: Any = tying.get(member.layer)
        if layer is not None:
            count = layer.num_groups if isinstance(layer, nn.GroupNorm) else layer.groups
            parts.append((member.channels, member.index // (_length(layer, member.side) // count), member.layer, count))
    while True:
        before = labels.clone()
        for channels, numbers, name, count in parts:
            # Both sides of a layer have the same numbers, so that its lowest label passes from one to the other.
            lowest = torch.full((count,), group.size)
            for other, own, layer_name, _ in parts:
                if layer_name == name:
                    lowest.scatter_reduce_(0, own, labels[other], "amin")
            labels.scatter_reduce_(0, channels, lowest[numbers], "amin")
        if torch.equal(before, labels):
            return labels.unique(return_inverse=True)[1]
