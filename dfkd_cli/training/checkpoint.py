"""The files an interrupted run goes on from: written whole or not at all, the last two kept, damage noticed."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO

import torch

FORMAT = 2  # of what a run saves in them: one more whenever a `state_dict` gains, loses or reinterprets an entry
KEPT = 2
_HASH_LETTERS = 16  # of the sha256 in a file's name: it appears together with the content, in one rename


@dataclass(frozen=True)
class Interval:
    """How often to write one: by time, by student steps, or by whichever comes first."""

    seconds: float | None = None
    steps: int | None = None

    def over(self, seconds: float, steps: int) -> bool:
        """Whether it has passed after so much time and so many steps."""
        by_time = self.seconds is not None and seconds >= self.seconds
        return by_time or (self.steps is not None and steps >= self.steps)


class Checkpoints:
    """The checkpoints of one run, in a folder of their own that need not exist yet."""

    def __init__(self, folder: Path):
        self.folder = folder

    def found(self) -> list[Path]:
        """All of them, oldest first."""
        return sorted(self.folder.glob("*-step*-*.pt"))

    def step(self) -> int | None:
        """The student step of the newest; None without any."""
        found = self.found()
        return _step(found[-1]) if found else None

    def save(self, state: dict[str, Any], step: int) -> None:
        """Adds one of tensors, numbers and text; afterwards it is on the disk, and all but the last two are gone.

        Raises OSError when it cannot be written; the earlier ones are still there then.
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
        """The newest that is whole, on the CPU; None without one. Damaged ones before it are removed and noted."""
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
        """Removes all of them."""
        for path in self.found():
            path.unlink()


def _write(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # of torch, which after a failed write fails once more to end its archive
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _step(path: Path) -> int:
    return int(path.name.split("-")[1].removeprefix("step"))


def _digest(file: BufferedIOBase) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()[:_HASH_LETTERS]


def _sync_folder(folder: Path) -> None:
    """Makes a rename in it last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
