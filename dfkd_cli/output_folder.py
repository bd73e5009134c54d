"""The folder a run leaves behind: complete or not there at all, and never at the cost of somebody's files."""

import errno
import os
import shutil
import uuid
from pathlib import Path
from types import TracebackType

from dfkd_cli.errors import DfkdError, UsageError

# Everything a run writes at the top of its folder. `--overwrite` replaces a folder only when it holds nothing else.
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
)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds either what it held before or all of `content`."""
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


class OutputFolder:
    """A context whose value is a hidden folder to write into; it becomes `path` when the block ends without an error.

    After an error nothing is left, and a folder that is to be overwritten is still what it was.

    Raises UsageError when made: `path` is a file, holds something and `overwrite` is off, or holds files that no run
    of dfkd wrote. Raises DfkdError instead of the block's OSError when the disk is full.
    """

    def __init__(self, path: Path | str, overwrite: bool = False):
        self.path = Path(os.path.abspath(path))
        self.overwrite = overwrite
        self._unfinished: Path | None = None
        self._check()

    def __enter__(self) -> Path:
        # In the nearest folder that exists: on the disk of the result, so that moving it there is one rename, and
        # without making parents that a failed run would leave behind.
        home = next(parent for parent in self.path.parents if parent.exists())
        unfinished = home / f".{self.path.name}.unfinished-{uuid.uuid4().hex[:8]}"
        try:
            unfinished.mkdir()
        except OSError as error:
            raise UsageError(f"cannot write below {home}: {error.strerror}") from error
        self._unfinished = unfinished
        return unfinished

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is None:
            return
        try:
            if error is None:
                self._check()
                self._move_into_place(unfinished)
        except OSError as failure:
            raise DfkdError(f"cannot write {self.path}: {failure.strerror}; nothing was written") from failure
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise DfkdError(f"the disk that holds {self.path} is full; nothing was written") from error

    def _check(self) -> None:
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; the output must be a folder")
        found = sorted(entry.name for entry in self.path.iterdir())
        if found and not self.overwrite:
            raise UsageError(f"{self.path} is not empty (it holds {found[0]}); use --overwrite or another folder")
        strange = [name for name in found if name not in WRITTEN]
        if strange:
            raise UsageError(
                f"{self.path} holds {strange[0]}, which dfkd did not write and --overwrite would delete; "
                "move it or use another folder"
            )

    def _move_into_place(self, unfinished: Path) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            os.rename(unfinished, self.path)
            return
        # Through the link, if `path` is one: the link stays and its folder is replaced.
        place = self.path.resolve()
        old = place.with_name(f".{place.name}.old-{uuid.uuid4().hex[:8]}")
        os.rename(place, old)
        try:
            os.rename(unfinished, place)
        except BaseException:
            os.rename(old, place)
            raise
        shutil.rmtree(old, ignore_errors=True)
