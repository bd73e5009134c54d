"""Factors on the channels that fade out, at the inputs of the layers that read them."""

from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.narrowing.groups import Structure
from dfkd_cli.narrowing.share import Removal


class Gates:
    """Multiplies channels of a network by factors that fall from 1 to 0, one channel after another.

    A channel whose factor is 0 has no effect, so that it can be removed without a change of the network's function.
    """

    def __init__(self, module: nn.Module, structure: Structure, removal: Removal, overlap: float):
        self.overlap = overlap
        starts = {pair: place / max(len(removal), 1) * (1.0 - overlap) for place, pair in enumerate(removal)}
        layers = dict(module.named_modules())
        self.starts: list[Tensor] = []
        self.factors: list[Tensor] = []
        self.hooks = []
        for layer_name, start in _starts_by_layer(layers, structure, starts).items():
            layer = layers[layer_name]
            start = start.to(next(layer.parameters()).device)
            factor = torch.ones_like(start)
            self.starts.append(start)
            self.factors.append(factor)
            self.hooks.append(layer.register_forward_pre_hook(_multiply_by(factor)))

    def set(self, progress: float) -> None:
        """Set all factors; `progress` is the share of the fading that is done, in [0, 1]."""
        for start, factor in zip(self.starts, self.factors, strict=True):
            factor.copy_(1.0 - ((progress - start) / self.overlap).clamp(0.0, 1.0))

    def close(self) -> None:
        """Set all channels to 0 that fade out."""
        for start, factor in zip(self.starts, self.factors, strict=True):
            factor.copy_(start.isinf())

    def remove(self) -> None:
        """Detach from the network."""
        for hook in self.hooks:
            hook.remove()


def _starts_by_layer(
    layers: dict[str, nn.Module], structure: Structure, starts: dict[tuple[int, int], float]
) -> dict[str, Tensor]:
    """Return for each layer that reads fading channels when each of its inputs begins to fade; infinity for never."""
    found: dict[str, Tensor] = {}
    for place, group in enumerate(structure.groups):
        times = torch.tensor([starts.get((place, channel), torch.inf) for channel in range(group.size)])
        if times.isinf().all():
            continue
        for member in group.consumers():
            layer: Any = layers[member.layer]
            length = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            start = found.setdefault(member.layer, torch.full((length,), torch.inf))
            start[member.index] = times[member.channels]
    return found


def _multiply_by(factor: Tensor):
    def multiply(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values = inputs[0]
        shape = (-1,) if isinstance(layer, nn.Linear) else (-1, *[1] * (values.dim() - 2))
        return (values * factor.to(values.dtype).view(shape), *inputs[1:])

    return multiply
