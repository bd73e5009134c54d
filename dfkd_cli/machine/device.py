"""The torch device of a `--device` argument."""

import torch

from dfkd_cli.errors import UsageError
from dfkd_cli.machine.world.launch import launched_place


def resolve_device(name: str) -> torch.device:
    """Return the device of `auto` (a CUDA device, else the CPU), `cpu`, `cuda` or `cuda:INDEX`.

    Without an index it is the first CUDA device, or under `torchrun` that of this process.
    Raises UsageError for any other name and for a CUDA device that does not exist.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", _own_index(count)) if count else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (":" in name and not index.isdecimal()):
        raise UsageError(f"--device {name}: use auto, cpu, cuda or cuda:INDEX")
    if int(index or _own_index(count)) >= count:
        seen = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise UsageError(f"--device {name}: torch finds {seen}; use --device cpu")
    return torch.device("cuda", int(index or _own_index(count)))


def _own_index(count: int) -> int:
    """Return the index of this process's device. Raises UsageError when it has to be shared with another process."""
    place = launched_place()
    if place.local_size > count > 0:
        raise UsageError(f"torchrun started {place.local_size} processes here, but torch finds {count} CUDA devices")
    return place.local_rank
