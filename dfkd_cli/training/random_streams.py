"""Every source of randomness of a run: saved together, restored together."""

import torch
from torch import Tensor


def random_streams(rng: torch.Generator) -> dict[str, Tensor]:
    """The states of `rng` and of torch's global streams: the CPU's, and that of the GPU where `rng` lives on one."""
    streams = {"setting": rng.get_state(), "cpu": torch.get_rng_state()}
    return streams | ({"cuda": torch.cuda.get_rng_state(rng.device)} if rng.device.type == "cuda" else {})


def set_random_streams(rng: torch.Generator, streams: dict[str, Tensor]) -> None:
    """Takes over what `random_streams` returned for an `rng` on the same kind of device."""
    rng.set_state(streams["setting"])
    torch.set_rng_state(streams["cpu"])
    if "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"], rng.device)
