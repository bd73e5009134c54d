"""The machine that a run was computed on, and the number of threads that torch used."""

import platform
from dataclasses import dataclass, field
from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")  # exists on Linux only


def cpu_name() -> str:
    """Return the processor's model name, or its instruction set if the system does not give the name."""
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def gpu_name(device: torch.device) -> str | None:
    """Return the name of the GPU, or None if `device` is not a GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


@dataclass(frozen=True)
class Environment:
    """The machine of a run."""

    system: str = field(default_factory=platform.platform)
    cpu: str = field(default_factory=cpu_name)
    threads: int = field(default_factory=torch.get_num_threads)  # of torch, on the CPU
    gpu: str | None = None
