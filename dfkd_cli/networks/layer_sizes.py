"""Layers of other sizes: a network whose layers have the sizes of given tensors."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeGuard

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)  # their filters are [in, out, ...]
BY_CHANNEL = (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm1d, nn.InstanceNorm2d)


def is_grouped(layer: nn.Module) -> bool:
    """Return whether a convolution has groups, each of which reads and writes channels of its own."""
    return isinstance(layer, CONVOLUTIONS) and layer.groups > 1


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether a convolution has one filter per channel."""
    return isinstance(layer, CONVOLUTIONS) and 1 < layer.groups == layer.in_channels == layer.out_channels


class Attention(Protocol):
    """What an attention of timm has: one layer for queries, keys and values, in which the heads stand side by side."""

    num_heads: int
    head_dim: int
    attn_dim: int
    qkv: nn.Linear
    proj: nn.Linear


def is_attention(layer: nn.Module) -> TypeGuard[Attention]:
    """Return whether a module has the layers and the sizes of `Attention`."""
    sizes = [getattr(layer, name, None) for name in ("num_heads", "head_dim", "attn_dim")]
    found: Any = layer
    return (
        all(isinstance(size, int) for size in sizes)
        and isinstance(getattr(layer, "qkv", None), nn.Linear)
        and isinstance(getattr(layer, "proj", None), nn.Linear)
        and found.num_heads * found.head_dim == found.attn_dim == found.proj.in_features
        and found.qkv.out_features == 3 * found.attn_dim
    )


def channel_axes(layer: nn.Module, value: Tensor) -> dict[Literal["in", "out"], int]:
    """Return which axis of one of the layer's tensors has its input channels, and which one its output channels.

    The filters of a grouped convolution have no axis for all of its input channels. An axis of length one is shared by
    all channels and left out.
    """
    axes: dict[Literal["in", "out"], int] = {"out": 0} if value.ndim else {}
    if value.ndim > 1 and not is_grouped(layer):
        axes = {"in": 0, "out": 1} if isinstance(layer, TRANSPOSED) else {"out": 0, "in": 1}
    return {side: axis for side, axis in axes.items() if value.shape[axis] > 1}


def fit_layers(module: nn.Module, values: Mapping[str, Tensor]) -> bool:
    """Give every layer the sizes of its tensors in `values`, by their names in the module's state dict, in place.

    The new tensors hold the values. Layers whose tensors have their sizes already keep their tensors, and layers that
    share a parameter still do if their values are equal. Return whether any layer changed.
    """
    any_changed = False
    replaced: dict[nn.Parameter, nn.Parameter] = {}
    attentions = [layer for layer in module.modules() if is_attention(layer)]
    for name, layer in module.named_modules():
        prefix = f"{name}." if name else ""
        numbers = _numbers_per_group(layer)
        own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        changed = {key: values[prefix + key] for key, value in own if _differs(values.get(prefix + key), value)}
        for key, value in changed.items():
            old = getattr(layer, key)
            value = value.detach().clone(memory_format=torch.preserve_format)
            if isinstance(old, nn.Parameter):
                shared = replaced.get(old)
                if shared is None or not torch.equal(shared, value):
                    shared = replaced[old] = nn.Parameter(value, old.requires_grad)
                value = shared
            setattr(layer, key, value)
        if changed:
            any_changed = True
            _update_sizes(layer, numbers)
    for layer in attentions:
        layer.attn_dim = layer.proj.in_features
        layer.num_heads = layer.attn_dim // layer.head_dim
    return any_changed


def _differs(value: Tensor | None, own: Tensor) -> bool:
    return value is not None and value.ndim == own.ndim and value.shape != own.shape


def _numbers_per_group(layer: nn.Module) -> int:
    """Return how many outputs each group of a convolution or a GroupNorm has."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels // layer.num_groups
    return layer.out_channels // layer.groups if isinstance(layer, CONVOLUTIONS) else 1


def _update_sizes(layer: nn.Module, numbers: int) -> None:
    """Set the attributes that say how large a layer is; `numbers` is that of the outputs of each of its groups."""
    if isinstance(layer, TRANSPOSED):
        layer.in_channels, layer.out_channels = layer.weight.shape[:2]
    elif isinstance(layer, CONVOLUTIONS):
        layer.out_channels = layer.weight.shape[0]
        if layer.groups > 1:
            layer.groups = layer.out_channels // numbers
        layer.in_channels = layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, BY_CHANNEL):
        layer.num_features = len(layer.running_mean if layer.running_mean is not None else layer.weight)
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels = len(layer.weight)
        layer.num_groups = layer.num_channels // numbers
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
