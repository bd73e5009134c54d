"""Groups of channels that belong together."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

from dfkd_cli.networks.layer_sizes import BY_CHANNEL, CONVOLUTIONS, TRANSPOSED

NARROWED = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# Layers whose channels can go without any effect on the other channels, or, of GroupNorm, on the other groups.
CHANNELWISE = (*NARROWED, *BY_CHANNEL, nn.GroupNorm, nn.PReLU)


class Member(NamedTuple):
    """The share that one layer has in a group: its input or output channels `index` belong to `channels`."""

    layer: str
    side: Literal["in", "out"]
    index: Tensor  # [M] of the layer's channels
    channels: Tensor  # [M] of the group's channels


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together, in every layer that produces or consumes them."""

    root: str  # the layer that the group is found from
    size: int  # channels, or sets of channels that only go together
    members: tuple[Member, ...]
    inner: bool  # no residual connection carries these channels
    scarce: bool = False  # the network gains little without these channels and can hardly do without them

    def consumers(self) -> list[Member]:
        """Return the members that read the channels."""
        return [member for member in self.members if member.side == "in"]

    def producers(self) -> list[Member]:
        """Return the members that write the channels, layers such as BatchNorm included."""
        return [member for member in self.members if member.side == "out"]


class Structure(NamedTuple):
    """The groups of a network in the order of their roots, and one sentence for each group that must stay whole."""

    groups: tuple[ChannelGroup, ...]
    fixed: tuple[str, ...]
    calls: tuple[str, ...]  # layers in the order of their first call
