"""The torch device of a `--device` argument."""

import torch

from dfkd_cli.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """Return the device of `auto` (the first CUDA device, else the CPU), `cpu`, `cuda` or `cuda:INDEX`.

    Raises UsageError for any other name and for a CUDA device that does not exist.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (":" in name and not index.isdecimal()):
        raise UsageError(f"--device {name}: use auto, cpu, cuda or cuda:INDEX")
    if int(index or 0) >= count:
        seen = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise UsageError(f"--device {name}: torch finds {seen}; use --device cpu")
    return torch.device("cuda", int(index or 0))
