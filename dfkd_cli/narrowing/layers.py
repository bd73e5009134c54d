"""Layers of other sizes: tensors without the removed channels, and layers that fit given tensors."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from dfkd_cli.narrowing.groups import Structure
from dfkd_cli.narrowing.share import Removal, is_depthwise

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
        out, into = gone.get((layer, "out")), gone.get((layer, "in"))
        if out and value.dim() > 0 and value.shape[0] > 1:
            value = value.index_select(0, _kept(value.shape[0], out, value.device))
        if into and value.dim() > 1 and not is_depthwise(layers[layer]):
            value = value.index_select(1, _kept(value.shape[1], into, value.device))
        left[name] = value
    return left


def _kept(length: int, gone: set[int], device: torch.device) -> Tensor:
    return torch.tensor([place for place in range(length) if place not in gone], device=device)


def fit_layers(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give every layer the sizes of its tensors in `values`, by their names in the module's state dict, in place.

    The new tensors hold the values. Layers whose tensors have their sizes already keep their tensors.
    """
    for name, layer in module.named_modules():
        prefix = f"{name}." if name else ""
        depthwise = is_depthwise(layer)
        own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        changed = {key: values[prefix + key] for key, value in own if _differs(values.get(prefix + key), value)}
        for key, value in changed.items():
            old = getattr(layer, key)
            value = value.detach().clone(memory_format=torch.preserve_format)
            setattr(layer, key, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)
        if changed:
            _update_sizes(layer, depthwise)


def _differs(value: Tensor | None, own: Tensor) -> bool:
    return value is not None and value.shape != own.shape


def _update_sizes(layer: nn.Module, depthwise: bool) -> None:
    """Set the attributes that say how large a layer is."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        layer.out_channels = layer.weight.shape[0]
        if depthwise:
            layer.groups = layer.in_channels = layer.out_channels
        else:
            layer.in_channels = layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        layer.num_features = len(layer.running_mean if layer.running_mean is not None else layer.weight)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
