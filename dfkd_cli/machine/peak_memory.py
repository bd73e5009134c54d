"""The most memory that a process has held."""

import resource
import sys

import torch


def peak_memory_bytes(device: torch.device) -> int:
    """Of this process so far: on `device` if that is a GPU, else in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes
