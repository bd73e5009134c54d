"""The output folder of a run: it appears when the result is complete, and replaces no files of others."""

import contextlib
import errno
import fcntl
import filecmp
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import TextIO

from dfkd_cli.config.folders import unfinished_folder
from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.training.checkpoint import Checkpoints

# All files of a result. `--overwrite` replaces a folder only if it holds nothing but these and exports of its student.
WRITTEN = (
    "student.safetensors",
    "model.safetensors",
    "student.pt2",
    "config.json",
    "calibration.safetensors",
    "recipe.yaml",
    "metrics.jsonl",
    "report.json",
    "report.md",
    "report.html",
    "README.md",
    "samples.png",
    "selected.csv",
)
EXPORTED = ("student.onnx", "student.int8.onnx", "student.pt")
# A name that networks of other programs have too: a file of this name is dfkd's if it is equal to the student.
ANOTHER_NAME, STUDENT = "model.safetensors", "student.safetensors"
LOCK = "lock"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class OutputFolder:
    """A context that yields a hidden folder; it is renamed to `path` when the block ends without an error.

    The hidden folder is in `unfinished`, beside the identity and the checkpoints that a resumed run needs. After an
    error `unfinished` stays if it has a checkpoint, and is removed otherwise; a folder that was to be overwritten is
    unchanged. A complete result that cannot be renamed to `path` stays in `unfinished`. A lock excludes other
    processes.

    The constructor raises UsageError if `path` is the root folder or a file, is not empty without `overwrite`, or holds
    files that dfkd did not write; if there is an unfinished run without `resume` or `overwrite`, or none to resume; and
    if an earlier result could not be renamed and `overwrite` is off. The end of the block raises UsageError if
    something is at `path` by then, DfkdError if the rename fails, and DfkdError in place of an OSError if the disk is
    full.
    """

    def __init__(self, path: Path | str, overwrite: bool = False, resume: bool = False):
        self.path = Path(os.path.abspath(path))
        self.place = Path(os.path.realpath(path))  # if `path` is a link, its target is replaced and not the link
        self.overwrite, self.resume = overwrite, resume
        if not self.place.name:
            raise UsageError(f"--out {path} is the root folder; name a new folder (is a shell variable unset?)")
        # On the disk of the result, so that one rename moves it, and at a place that `path` determines.
        self.unfinished = unfinished_folder(self.place)
        self.checkpoints = Checkpoints(self.unfinished / "checkpoints")
        self._made: list[Path] = []  # parents that this object creates
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
        resumable = self.stopped_at() is not None
        advice = f"free some space, then continue with --resume {self.path}" if resumable else "nothing was written"
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
            raise DfkdError(f"the disk that holds {self.path} is full; {advice}") from error

    def stopped_at(self) -> int | None:
        """Return the student step from which an unfinished run can continue; None without such a run."""
        # Without the result the run has finished, and only the rest of `unfinished` was not removed.
        return self.checkpoints.step() if self._result.is_dir() else None

    @property
    def _result(self) -> Path:
        return self.unfinished / "result"

    @property
    def _finished(self) -> Path:
        return self.unfinished / "finished"  # the complete result, before it is moved to `place`

    def _take_lock(self) -> TextIO:
        """Return an open file with a lock, which ends when the file is closed or the process ends."""
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
            raise UsageError(f"--resume {self.path}: there is {finished}, nothing to continue; use --out for a new run")
        if step is not None and not self.resume and not self.overwrite:
            raise UsageError(
                f"{self.path} has an unfinished run, stopped at step {step:,}: continue with --resume {self.path}, or "
                "start anew with --overwrite"
            )

    def _check(self) -> None:
        if obstacle := self._obstacle():
            raise UsageError("; ".join(obstacle))

    def _obstacle(self) -> tuple[str, str] | None:
        """Return why `path` cannot become a result, and what the user can do before a run; None if it can."""
        if not os.path.lexists(self.path):
            return None
        if not self.path.is_dir():
            return f"{self.path} is a file", "the output must be a folder"
        if os.path.ismount(self.place):
            return f"{self.path} is a mount point, which cannot be replaced", "use a folder in it"
        found = sorted(entry.name for entry in self.path.iterdir())
        if found and not self.overwrite:
            return f"{self.path} is not empty (it holds {found[0]})", "use --overwrite or another folder"
        strange = [name for name in found if name not in (*WRITTEN, *EXPORTED)]
        if ANOTHER_NAME in found and not _same_file(self.path / ANOTHER_NAME, self.path / STUDENT):
            strange.append(ANOTHER_NAME)
        if not strange:
            return None
        return (
            f"{self.path} holds {strange[0]}, which dfkd did not write and --overwrite would delete",
            "move it or use another folder",
        )

    def _finish(self) -> None:
        """Move the result to its place. Raises DfkdError or UsageError that names the folder where it is otherwise."""
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
        return f"the finished result is left in {kept}: move it yourself"

    def _move_into_place(self) -> None:
        if not self.place.exists():
            os.rename(self._finished, self.place)
            return
        replaced = self.unfinished / "replaced"  # removed with `unfinished`, by a later run if this process ends before
        os.rename(self.place, replaced)
        try:
            os.rename(self._finished, self.place)
        except BaseException:
            os.rename(replaced, self.place)
            raise

    def _remove_unfinished(self) -> None:
        shutil.rmtree(self.unfinished, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty
            for parent in self._made:
                parent.rmdir()


def _same_file(one: Path, other: Path) -> bool:
    """Return whether both files exist and have the same content."""
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def _remove_all(folder: Path, but: str) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != but:
            entry.unlink()
