"""The checkpoints of a run of several processes: the first one writes and reads them for all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfkd_cli.machine.world.world import World
from dfkd_cli.training.checkpoint import Checkpoints


class SharedCheckpoints(Checkpoints):
    """The checkpoints in a folder of the first process; the other processes need no folder.

    Every process calls the same methods. A world of one uses them like `Checkpoints`.
    """

    def __init__(self, folder: Path, world: World):
        super().__init__(folder)
        self.world = world

    def step(self) -> int | None:
        """Return the student step of the newest checkpoint; None without one."""
        step = super().step() if self.world.is_first else None
        known = int(self.world.of_first(-1 if step is None else step))
        return None if known < 0 else known

    def save(self, state: dict[str, Any], step: int) -> None:
        """Write a checkpoint in the first process, whose state contains that of the others, which wait for it."""
        if self.world.is_first:
            super().save(state, step)
        self.world.any(False)

    def load(self, note: Callable[[str], None]) -> dict[str, Any] | None:
        """Return the newest intact checkpoint in all processes."""
        return self.world.spread(super().load(note) if self.world.is_first else None)

    def clear(self) -> None:
        """Delete all checkpoints."""
        if self.world.is_first:
            super().clear()
