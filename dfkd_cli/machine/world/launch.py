"""The place of this process among those that `torchrun` started. Imports no torch."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The place of a process, from the environment variables of `torchrun`; without them it is alone."""

    rank: int = 0
    size: int = 1  # processes on all machines
    local_rank: int = 0  # on this machine: the index of its GPU
    local_size: int = 1
    restarts: int = 0  # that `torchrun --max-restarts` has done


def launched_place() -> Place:
    """Return the place of this process."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Place()
    return Place(*(int(os.environ.get(name) or default) for name, default in zip(names, (0, 1, 0, 1, 0), strict=True)))


def command(words: Sequence[str]) -> str:
    """Return the shell command that runs `dfkd` with these words in as many processes as now."""
    place = launched_place()
    if place.size == 1:
        return shlex.join(["dfkd", *words])
    one_machine = f"--standalone --nproc-per-node {place.size}" if place.size == place.local_size else "..."
    return f"torchrun {one_machine} -m dfkd_cli {shlex.join(words)}"
