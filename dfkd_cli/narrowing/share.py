"""How many channels have to go for a network to have at most a share of its parameters."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

import torch
from torch import nn

from dfkd_cli.narrowing.config import Order
from dfkd_cli.narrowing.groups import Structure
from dfkd_cli.narrowing.order import removal_order
from dfkd_cli.networks.layer_sizes import channel_axes

INNER_FLOOR = 0.125  # share of inner channels that stay before channels of residual connections go
BOTTLENECK = 0.5  # largest width inside of a block, as a share of that of the residual connection around it

Removal = list[tuple[int, int]]  # (group, channel), in the order in which they go


def choose_channels(module: nn.Module, structure: Structure, share: float, order: Order) -> Removal:
    """Return the shortest list of channels without which the network has at most `share` of its parameters.

    Inner channels go first; channels of residual connections only when the share cannot be reached without them, or in
    equal shares when blocks are bottlenecks; scarce channels last. When the share cannot be reached at all, the list
    has all channels that can go.
    """
    inner = removal_order(module, structure, order, lambda group: group.inner and not group.scarce)
    outer = removal_order(module, structure, order, lambda group: not group.inner and not group.scarce)
    scarce = removal_order(module, structure, order, lambda group: group.scarce)
    total = sum(parameter.numel() for parameter in module.parameters())
    first = [] if has_bottlenecks(structure) else inner[: round(len(inner) * (1.0 - INNER_FLOOR))]
    candidates = [*first, *_interleaved(outer, inner[len(first) :]), *scarce]
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if count_parameters(module, structure, candidates[:middle]) <= share * total:
            high = middle
        else:
            low = middle + 1
    return candidates[:low]


def has_bottlenecks(structure: Structure) -> bool:
    """Return whether blocks are much narrower inside than the residual connections around them.

    Then the inner channels are those that the network can least do without.
    """
    read: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for group in structure.groups:
        for member in group.consumers():
            read[group.inner][member.layer] += len(member.index)
    if not read[True] or not read[False]:
        return False
    return median(read[True].values()) < BOTTLENECK * median(read[False].values())


def _interleaved(one: Removal, other: Removal) -> Removal:
    """Return both lists merged so that they end together."""
    places = [((rank + 0.5) / len(one), item) for rank, item in enumerate(one)]
    places += [((rank + 0.5) / len(other), item) for rank, item in enumerate(other)]
    return [item for _, item in sorted(places)]


def count_parameters(module: nn.Module, structure: Structure, removed: Sequence[tuple[int, int]]) -> int:
    """Return the number of parameters that are left without these (group, channel) pairs."""
    masks = [torch.zeros(group.size, dtype=torch.bool) for group in structure.groups]
    for place, channel in removed:
        masks[place][channel] = True
    gone: Counter[tuple[str, str]] = Counter()
    for mask, group in zip(masks, structure.groups, strict=True):
        for member in group.members:
            gone[member.layer, member.side] += int(mask[member.channels].sum())
    total, counted = 0, set()
    for name, layer in module.named_modules():
        for parameter in layer.parameters(recurse=False):
            if parameter in counted:  # layers can share one
                continue
            counted.add(parameter)
            left = parameter.numel()
            for side, axis in channel_axes(layer, parameter).items():
                left = left // parameter.shape[axis] * (parameter.shape[axis] - gone[name, side])
            total += left
    return total
