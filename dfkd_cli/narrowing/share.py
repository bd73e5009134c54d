"""How many channels have to go for a network to have at most a share of its parameters."""

from collections import Counter
from collections.abc import Sequence

from torch import nn

from dfkd_cli.errors import UsageError
from dfkd_cli.narrowing.config import Order
from dfkd_cli.narrowing.groups import Structure
from dfkd_cli.narrowing.order import removal_order
from dfkd_cli.networks.layer_sizes import is_depthwise

INNER_FLOOR = 0.125  # share of inner channels that stay before channels of residual connections go

Removal = list[tuple[int, int]]  # (group, channel), in the order in which they go


def choose_channels(module: nn.Module, structure: Structure, share: float, order: Order) -> Removal:
    """Return the shortest list of channels without which the network has at most `share` of its parameters.

    Inner channels go first; channels of residual connections only when the share cannot be reached without them.
    Raises UsageError, naming the smallest possible share, when it cannot be reached at all.
    """
    inner = removal_order(module, structure, order, inner=True)
    outer = removal_order(module, structure, order, inner=False)
    total = sum(parameter.numel() for parameter in module.parameters())
    first = inner[: round(len(inner) * (1.0 - INNER_FLOOR))]
    candidates = [*first, *_interleaved(outer, inner[len(first) :])]
    if (smallest := count_parameters(module, structure, candidates) / total) > share:
        fixed = f" ({structure.fixed[0]})" if structure.fixed else ""
        raise UsageError(
            f"--student {share:g}: the smallest possible share of this network is {smallest:.3f}{fixed}; use that or "
            "more, or the name of an architecture"
        )
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if count_parameters(module, structure, candidates[:middle]) / total <= share:
            high = middle
        else:
            low = middle + 1
    return candidates[:low]


def _interleaved(one: Removal, other: Removal) -> Removal:
    """Return both lists merged so that they end together."""
    places = [((rank + 0.5) / len(one), item) for rank, item in enumerate(one)]
    places += [((rank + 0.5) / len(other), item) for rank, item in enumerate(other)]
    return [item for _, item in sorted(places)]


def count_parameters(module: nn.Module, structure: Structure, removed: Sequence[tuple[int, int]]) -> int:
    """Return the number of parameters that are left without these (group, channel) pairs."""
    gone: Counter[tuple[str, str]] = Counter()
    by_group: dict[int, set[int]] = {}
    for place, channel in removed:
        by_group.setdefault(place, set()).add(channel)
    for place, channels in by_group.items():
        for member in structure.groups[place].members:
            gone[member.layer, member.side] += sum(channel in channels for channel in member.channels.tolist())
    total = 0
    for name, layer in module.named_modules():
        for parameter in layer.parameters(recurse=False):
            left = parameter.numel()
            lengths = parameter.shape
            if gone[name, "out"] and lengths:
                left = left // lengths[0] * (lengths[0] - gone[name, "out"])
            if gone[name, "in"] and len(lengths) > 1 and not is_depthwise(layer):
                left = left // lengths[1] * (lengths[1] - gone[name, "in"])
            total += left
    return total
