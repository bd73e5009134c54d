"""Reads and writes TorchScript archives."""

import io
from collections.abc import Mapping
from typing import IO, cast

import torch
from torch import Tensor, nn


def read_script(content: IO[bytes]) -> torch.jit.ScriptModule:
    """Return the module of an archive, on the CPU."""
    return torch.jit.load(content, map_location="cpu")


def write_script(module: nn.Module, images: Tensor, extra_files: Mapping[str, str]) -> bytes:
    """Return the module as an archive, traced with `images` [B, C, H, W]; other batch sizes may not work."""
    content = io.BytesIO()
    with torch.no_grad():
        traced = cast(torch.jit.ScriptModule, torch.jit.trace(module, images, check_trace=False))
    torch.jit.save(traced, content, _extra_files=dict(extra_files))
    return content.getvalue()
