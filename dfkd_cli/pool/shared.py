"""A selection that several processes make, each of its own share of the pool."""

from collections.abc import Sequence
from typing import Any

import torch

from dfkd_cli.machine.world.world import World
from dfkd_cli.pool.selected import Selected


class SharedSelection:
    """What the processes agree on: whether one of them still selects, and the list of all images."""

    def __init__(self, world: World):
        self.world = world
        self.waiting = False  # for another process
        self.lines_of_others = ""  # of selected.csv, in the first process

    def follow(self, selected: Selected | None) -> None:
        """Find out whether every process has a selection; each calls this after each of its rounds."""
        self.waiting = self.world.any(selected is None)
        if not self.waiting and selected is not None:
            others = self.world.collect({"csv": selected.to_csv()})
            self.lines_of_others = "".join(one["csv"].partition("\n")[2] for one in others)

    def notes(self, selected: Selected) -> list[str]:
        """Return sentences for the user about the selection of this process."""
        size = self.world.size
        shares = f"Each of {size} processes selected from its own share of the pool; these figures are of one share:"
        return selected.notes() if size == 1 else [shares, *selected.notes()]


def reshared(states: Sequence[dict[str, Any]], world: World) -> dict[str, Any]:
    """Return every n-th of all selected images as the state of a `Selected`, for the n processes of now."""
    images = torch.cat([state["images"][state[part]] for part in ("chosen", "next_best") for state in states])
    chosen = sum(len(state["chosen"]) for state in states)
    mine = range(world.rank, chosen, world.size)
    kept = [*mine, *range(chosen + world.rank, len(images), world.size)]
    lists = {name: [value for state in states for value in state[name]] for name in ("files", "classes", "scores")}
    counts = {name: sum(state[name] for state in states) // world.size for name in ("seen", "unreadable", "copies")}
    return (
        states[0]
        | counts
        | {
            "images": images[kept],
            "chosen": torch.arange(len(mine)),
            "next_best": torch.arange(len(mine), len(kept)),
            **{name: [values[place] for place in mine] for name, values in lists.items()},
        }
    )
