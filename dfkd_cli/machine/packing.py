"""States as bytes: to send them to another process, or to keep a copy that later steps do not change."""

import io
from typing import Any

import torch


def packed(state: Any) -> bytes:
    """Return a state of tensors, numbers and text as bytes."""
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def unpacked(content: bytes) -> Any:
    """Return the state in these bytes, with its tensors on the CPU."""
    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
