"""Layers of other sizes: a network whose layers have the sizes of given tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether a convolution has one filter per channel."""
    return isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == layer.in_channels and layer.groups > 1


def fit_layers(module: nn.Module, values: Mapping[str, Tensor]) -> bool:
    """Give every layer the sizes of its tensors in `values`, by their names in the module's state dict, in place.

    The new tensors hold the values. Layers whose tensors have their sizes already keep their tensors. Return whether
    any layer changed.
    """
    any_changed = False
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
            any_changed = True
            _update_sizes(layer, depthwise)
    return any_changed


def _differs(value: Tensor | None, own: Tensor) -> bool:
    return value is not None and value.ndim == own.ndim and value.shape != own.shape


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
