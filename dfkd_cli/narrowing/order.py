"""In which order the channels of a group go: without data, from BatchNorm and the weights that read a channel."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.narrowing.config import Order
from dfkd_cli.narrowing.groups import NARROWED, NORMS, ChannelGroup, Structure
from dfkd_cli.networks.layer_sizes import TRANSPOSED, is_grouped


def importance(module: nn.Module, group: ChannelGroup, calls: tuple[str, ...], order: Order) -> Tensor:
    """Return how much each channel of a group contributes, [size] in float64: small ones go first.

    "response" is the expected size of a channel after ReLU, from the scale and shift of its BatchNorm, times the norm
    of the weights that read it; without BatchNorm the norm of the weights that write it replaces the expectation.
    "weights" always uses that norm. "random" is a fixed random order.
    """
    if order == "random":
        return torch.rand(group.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layers = dict(module.named_modules())
    size = _response(layers, group, calls) if order == "response" else None
    if size is None:
        size = _square_norms(layers, group, "out").sqrt()
    return size * _square_norms(layers, group, "in").sqrt()


def _response(layers: dict[str, nn.Module], group: ChannelGroup, calls: tuple[str, ...]) -> Tensor | None:
    """Return E[ReLU(x)] of each channel for x ~ N(shift, scale^2), of the group's last BatchNorm; None without one."""
    norms = [member for member in group.producers() if isinstance(layers[member.layer], NORMS)]
    norms = [member for member in norms if _has_scale(layers[member.layer])]
    if not norms:
        return None
    member = max(norms, key=lambda one: calls.index(one.layer) if one.layer in calls else -1)
    layer: Any = layers[member.layer]
    scale, shift = (value.detach().double().cpu() for value in (layer.weight, layer.bias))
    ratio = shift / scale.abs().clamp_min(1e-12)
    density = (-0.5 * ratio.square()).exp() / math.sqrt(2.0 * math.pi)
    expected = scale.abs() * density + shift * torch.special.ndtr(ratio)
    return torch.zeros(group.size, dtype=torch.float64).index_add_(0, member.channels, expected[member.index])


def _has_scale(layer: nn.Module) -> bool:
    return isinstance(layer, NORMS) and layer.affine


def _square_norms(layers: dict[str, nn.Module], group: ChannelGroup, side: str) -> Tensor:
    """Return the squared norm of all weights that write ("out") or read ("in") each channel: [size]."""
    total = torch.zeros(group.size, dtype=torch.float64)
    for member in group.members:
        if member.side == side and isinstance(layers[member.layer], NARROWED):
            total.index_add_(0, member.channels, _layer_square_norms(layers[member.layer], side)[member.index])
    return total


def _layer_square_norms(layer: Any, side: str) -> Tensor:
    weight = layer.weight.detach().double().cpu().square()
    if isinstance(layer, TRANSPOSED):
        weight = weight.transpose(0, 1)
    count = layer.groups if is_grouped(layer) else 1
    by_pair = weight.reshape(count, weight.shape[0] // count, weight.shape[1], -1).sum(dim=3)
    return by_pair.sum(dim=2 if side == "out" else 1).flatten()


def removal_order(
    module: nn.Module, structure: Structure, order: Order, wanted: Callable[[ChannelGroup], bool]
) -> list[tuple[int, int]]:
    """Return (group, channel) of all wanted groups, interleaved so that groups shrink alike.

    The last channel of every group stays and is not in the list.
    """
    ranked = []
    for place, group in enumerate(structure.groups):
        if wanted(group):
            scores = importance(module, group, structure.calls, order)
            by_score = scores.argsort(stable=True).tolist()
            ranked += [((rank + 0.5) / group.size, place, channel) for rank, channel in enumerate(by_score[:-1])]
    return [(place, channel) for _, place, channel in sorted(ranked)]
