"""Checkpoint files: written atomically, verified by a hash, the last two kept."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO

import torch

FORMAT = 5  # increase it whenever an entry of a `state_dict` is added, removed or changes its meaning
KEPT = 2
_HASH_LETTERS = 16  # of the sha256 in the file name: one rename publishes content and hash together


@dataclass(frozen=True)
class Interval:
    """The time or the number of student steps between two checkpoints; whichever ends first counts."""

    seconds: float | None = None
    steps: int | None = None

    def over(self, seconds: float, steps: int) -> bool:
        """Return whether the interval has ended after `seconds` and `steps`."""
        by_time = self.seconds is not None and seconds >= self.seconds
        return by_time or (self.steps is not None and steps >= self.steps)


class Checkpoints:
    """The checkpoints of one run in a folder, which the first `save` creates."""

    def __init__(self, folder: Path):
        self.folder = folder

    def found(self) -> list[Path]:
        """Return the paths of all checkpoints, oldest first."""
        return sorted(self.folder.glob("*-step*-*.pt"))

    def step(self) -> int | None:
        """Return the student step of the newest checkpoint; None without one."""
        found = self.found()
        return _step(found[-1]) if found else None

    def save(self, state: dict[str, Any], step: int) -> None:
        """Write a checkpoint of tensors, numbers and text to the disk and delete all but the last two.

        Raises OSError when it cannot be written; the earlier checkpoints remain.
        """
        self.folder.mkdir(exist_ok=True)
        found = self.found()
        serial = int(found[-1].name.partition("-")[0]) + 1 if found else 0
        unfinished = self.folder / "unfinished"
        try:
            with unfinished.open("w+b") as file:
                _write(state, file)
                file.flush()
                os.fsync(file.fileno())
                digest = _digest(file)
            path = self.folder / f"{serial:06d}-step{step}-{digest}.pt"
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync_folder(self.folder)
        for old in [*found, path][:-KEPT]:
            old.unlink()

    def load(self, note: Callable[[str], None]) -> dict[str, Any] | None:
        """Return the newest intact checkpoint, on the CPU; None without one. Notes and deletes damaged newer ones."""
        damaged: list[Path] = []
        for path in reversed(self.found()):
            with path.open("rb") as file:
                if _digest(file) == path.stem.rpartition("-")[2]:
                    file.seek(0)
                    state = torch.load(file, weights_only=True, map_location="cpu")
                    for worse in damaged:
                        worse.unlink()
                    return state
            damaged.append(path)
            note(f"the checkpoint of step {_step(path):,} is damaged; looking for the one before it")
        return None

    def clear(self) -> None:
        """Delete all checkpoints."""
        for path in self.found():
            path.unlink()


def _write(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # torch raises it when it closes the archive after a failed write
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _step(path: Path) -> int:
    return int(path.name.split("-")[1].removeprefix("step"))


def _digest(file: BufferedIOBase) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()[:_HASH_LETTERS]


def _sync_folder(folder: Path) -> None:
    """Write the folder's entries to the disk, so that a rename survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
