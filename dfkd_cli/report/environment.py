"""What a run was computed on: the machine, and how much of it torch used."""

import platform
from dataclasses import dataclass, field
from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")  # Linux; elsewhere the platform's own name has to do


def cpu_name() -> str:
    """The processor's name as its maker gives it, or its instruction set where the system does not tell."""
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def gpu_name(device: torch.device) -> str | None:
    """The GPU's name; None when the run does not use one."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


@dataclass(frozen=True)
class Environment:
    """The machine of a run."""

    system: str = field(default_factory=platform.platform)
    cpu: str = field(default_factory=cpu_name)
    threads: int = field(default_factory=torch.get_num_threads)  # that torch computes with, on the CPU
    gpu: str | None = None
