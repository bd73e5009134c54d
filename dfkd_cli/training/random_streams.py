"""The states of all random number generators of a run."""

import torch
from torch import Tensor


def random_streams(rng: torch.Generator) -> dict[str, Tensor]:
    """Return the states of `rng` and of torch's global generators: the CPU's, and the GPU's when `rng` is on one."""
    streams = {"setting": rng.get_state(), "cpu": torch.get_rng_state()}
    return streams | ({"cuda": torch.cuda.get_rng_state(rng.device)} if rng.device.type == "cuda" else {})


def set_random_streams(rng: torch.Generator, streams: dict[str, Tensor]) -> None:
    """Restore what `random_streams` returned for an `rng` on the same kind of device."""
    rng.set_state(streams["setting"])
    torch.set_rng_state(streams["cpu"])
    if "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"], rng.device)
