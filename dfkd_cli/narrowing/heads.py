"""Attention heads, which go whole: the channels that `qkv` writes for a head, and those that `proj` reads of it."""

from collections.abc import Iterator

import torch
from torch import nn

from dfkd_cli.narrowing.groups import ChannelGroup, Member
from dfkd_cli.networks.layer_sizes import is_attention


def head_groups(module: nn.Module) -> Iterator[ChannelGroup]:
    """Return a group for each attention of timm, whose "channels" are the heads."""
    for name, layer in module.named_modules():
        if is_attention(layer):
            read = torch.arange(layer.attn_dim)
            written = torch.arange(3 * layer.attn_dim)  # queries, then keys, then values, each of all heads
            members = (
                Member(f"{name}.qkv", "out", written, written % layer.attn_dim // layer.head_dim),
                Member(f"{name}.proj", "in", read, read // layer.head_dim),
            )
            yield ChannelGroup(f"{name}.qkv", layer.num_heads, members, inner=True)
