"""The share of a checkpoint that belongs to one of several processes."""

from typing import Any

import torch

from dfkd_cli.machine.world.world import World
from dfkd_cli.training.method import ImageSource


def own_share(state: dict[str, Any], source: ImageSource, rng: torch.Generator, world: World) -> dict[str, Any]:
    """Return the state with the images and the random streams of this process.

    In another number of processes than before, the images are shared out anew, and a process that has no streams in
    the checkpoint begins those of its seed.
    """
    everyone = [state, *state.get("others", [])]
    if len(everyone) == 1 == world.size:
        return state
    if len(everyone) == world.size:
        return state | everyone[world.rank]
    method = state["method"]
    shared = source.reshared([one["method"]["source"] for one in everyone], world)
    mine = everyone[world.rank]["random"] if world.rank < len(everyone) else _first_streams(state["random"], rng)
    return state | {"method": method | {"source": shared}, "random": mine}


def _first_streams(streams: dict[str, torch.Tensor], rng: torch.Generator) -> dict[str, torch.Tensor]:
    return streams | {"setting": rng.get_state(), "cpu": torch.get_rng_state()}
