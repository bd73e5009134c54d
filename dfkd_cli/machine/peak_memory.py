"""The peak memory of a process."""

import resource
import sys

import torch


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory of this process so far: on `device` if it is a GPU, of the whole process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes
