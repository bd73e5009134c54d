"""The folder a run leaves behind: complete or not there at all, and never at the cost of somebody's files."""

import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import TextIO

from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.training.checkpoint import Checkpoints

# Everything a run writes at the top of its folder. `--overwrite` replaces a folder only when it holds nothing else but
# what `dfkd export` made of an earlier student there.
WRITTEN = (
    "student.safetensors",
    "config.json",
    "recipe.yaml",
    "metrics.jsonl",
    "report.json",
    "report.md",
    "report.html",
    "README.md",
    "samples.png",
    "selected.csv",
)
EXPORTED = ("student.onnx", "student.pt", "student.pt2")
LOCK = "lock"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class OutputFolder:
    """A context whose value is a hidden folder to write into; it becomes `path` when the block ends without an error.

    Beside the result, `unfinished` holds what a run needs to go on after it was stopped: its checkpoints, above all.
    After an error it stays when there are any, else nothing is left; a folder that is to be overwritten is still what
    it was. A complete result that cannot become `path` stays there too. One process at a time may enter.

    Raises UsageError when made: `path` is a file, holds something and `overwrite` is off, or holds files that no run
    of dfkd wrote; there is an unfinished run, and neither `resume` nor `overwrite` is on; there is none to resume; a
    result that could not become `path` is still there, and `overwrite` is off. Raises UsageError at the end for what
    came into the way of the result meanwhile, DfkdError when the disk refuses it, and DfkdError instead of the block's
    OSError when the disk is full.
    """

    def __init__(self, path: Path | str, overwrite: bool = False, resume: bool = False):
        self.path = Path(os.path.abspath(path))
        self.place = Path(os.path.realpath(path))  # through a link, if `path` is one: the link stays
        self.overwrite, self.resume = overwrite, resume
        # On the disk of the result, so that moving it there is one rename, and always found again.
        self.unfinished = self.place.with_name(f".{self.place.name}.unfinished")
        self.checkpoints = Checkpoints(self.unfinished / "checkpoints")
        self._made: list[Path] = []  # parents that did not exist
        self._lock: TextIO | None = None
        self._check_unfinished()
        self._check()

    def __enter__(self) -> Path:
        home = next(parent for parent in self.place.parents if parent.exists())
        self._made = [parent for parent in self.place.parents if not parent.exists()]
        try:
            self.unfinished.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            if not self.resume:
                _remove_all(self.unfinished, but=LOCK)
            self._result.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write below {home}: {error.strerror}") from error
        return self._result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lock, self._lock = self._lock, None
        if lock is None:
            return
        way_out = "nothing was written" if self.stopped_at() is None else f"go on with --resume {self.path} after that"
        moved = False
        try:
            if error is None:
                self._finish()
                moved = True
        finally:
            if moved or (error is not None and self.stopped_at() is None):
                self._remove_unfinished()
            lock.close()
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise DfkdError(f"the disk that holds {self.path} is full; {way_out}") from error

    def stopped_at(self) -> int | None:
        """The student step from which an unfinished run can go on; None without one."""
        # The result moves out in the end: without it the run has finished, and only its rest was not removed.
        return self.checkpoints.step() if self._result.is_dir() else None

    @property
    def _result(self) -> Path:
        return self.unfinished / "result"

    @property
    def _finished(self) -> Path:
        return self.unfinished / "finished"  # the result once it is complete, until it is moved

    def _take_lock(self) -> TextIO:
        """A file that is locked while it is open and this process lives."""
        try:
            file = (self.unfinished / LOCK).open("w")
        except OSError as error:
            raise UsageError(f"cannot write below {self.unfinished}: {error.strerror}") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.close()
            raise UsageError(f"another dfkd is writing {self.path} now; wait for it, or use another folder") from error
        return file

    def _check_unfinished(self) -> None:
        if (self.unfinished / LOCK).exists():
            self._take_lock().close()
        if self._finished.is_dir() and not self.overwrite:
            raise UsageError(
                f"{self.path} has a finished result that could not be moved there: move it yourself from "
                f"{self._finished}, or start anew with --overwrite"
            )
        step = self.stopped_at()
        if self.resume and step is None:
            finished = "a finished result" if (self.path / "report.json").exists() else "no unfinished run"
            raise UsageError(
                f"--resume {self.path}: there is {finished}, nothing to go on with; use --out for a new run"
            )
        if step is not None and not self.resume and not self.overwrite:
            raise UsageError(
                f"{self.path} has an unfinished run, stopped at step {step:,}: go on with --resume {self.path}, or "
                "start anew with --overwrite"
            )

    def _check(self) -> None:
        if obstacle := self._obstacle():
            raise UsageError("; ".join(obstacle))

    def _obstacle(self) -> tuple[str, str] | None:
        """What is in the way of a result, and what to do before a run."""
        if not os.path.lexists(self.path):
            return None
        if not self.path.is_dir():
            return f"{self.path} is a file", "the output must be a folder"
        if os.path.ismount(self.place):
            return f"{self.path} is a mount point, which no result can replace", "use a folder in it"
        found = sorted(entry.name for entry in self.path.iterdir())
        if found and not self.overwrite:
            return f"{self.path} is not empty (it holds {found[0]})", "use --overwrite or another folder"
        strange = [name for name in found if name not in (*WRITTEN, *EXPORTED)]
        if not strange:
            return None
        return (
            f"{self.path} holds {strange[0]}, which dfkd did not write and --overwrite would delete",
            "move it or use another folder",
        )

    def _finish(self) -> None:
        """Moves the result to its place, or tells where it lies instead."""
        try:
            os.rename(self._result, self._finished)
            obstacle = self._obstacle()
            if obstacle is None:
                self._move_into_place()
        except OSError as failure:
            raise DfkdError(f"cannot write {self.path}: {failure.strerror}; {self._kept()}") from failure
        if obstacle is not None:
            raise UsageError(f"{obstacle[0]}; {self._kept()}")

    def _kept(self) -> str:
        kept = self._finished if self._finished.is_dir() else self._result
        return f"the finished result is left in {kept}: move it from there yourself"

    def _move_into_place(self) -> None:
        if not self.place.exists():
            os.rename(self._finished, self.place)
            return
        replaced = self.unfinished / "replaced"  # removed with the rest, also when this process dies before
        os.rename(self.place, replaced)
        try:
            os.rename(self._finished, self.place)
        except BaseException:
            os.rename(replaced, self.place)
            raise

    def _remove_unfinished(self) -> None:
        shutil.rmtree(self.unfinished, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty, after all
            for parent in self._made:
                parent.rmdir()


def _remove_all(folder: Path, but: str) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != but:
            entry.unlink()
