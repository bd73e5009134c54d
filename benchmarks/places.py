"""Paths with placeholders, DATA/... and TEACHERS/..., so that results do not depend on the folders of a machine."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

PLACES = ("DATA", "TEACHERS")


@dataclass(frozen=True)
class Places:
    """The folders of the placeholders on this machine; None for one that was not given."""

    data: Path | None
    teachers: Path | None

    def resolve(self, text: str) -> str:
        """Return `text` with its placeholder, also after a prefix as in `mnist:DATA`, replaced by the folder.

        Raises SystemExit when the folder was not given.
        """
        prefix, path = _split(text)
        name, slash, rest = path.partition("/")
        if name not in PLACES:
            return text
        root = self._roots()[name]
        if root is None:
            raise SystemExit(f"{text}: give the folder {name} with --{name.lower()}-root or ${_variable(name)}")
        return f"{prefix}{root}{slash}{rest}"

    def record(self, text: str) -> str:
        """Return `text` for a row: an absolute path below one of the folders begins with its placeholder.

        Raises SystemExit for an absolute path that is below none of them.
        """
        prefix, path = _split(text)
        if not Path(path).is_absolute():
            return text
        for name, root in self._roots().items():
            if root is not None and Path(path).is_relative_to(root):
                rest = Path(path).relative_to(root)
                return f"{prefix}{name}" if rest == Path() else f"{prefix}{name}/{rest.as_posix()}"
        raise SystemExit(f"{text} is below neither --data-root nor --teachers-root, and results contain no other paths")

    def _roots(self) -> dict[str, Path | None]:
        return {"DATA": self.data, "TEACHERS": self.teachers}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the folders."""
    for name, what in (("DATA", "the data sets"), ("TEACHERS", "the third-party checkpoints")):
        default = os.environ.get(_variable(name))
        parser.add_argument(
            f"--{name.lower()}-root", type=Path, default=default, help=f"folder of {what}; default ${_variable(name)}"
        )


def places_of(arguments: argparse.Namespace) -> Places:
    """Return the folders from the command line or the environment."""
    data, teachers = (root and Path(os.path.abspath(root)) for root in (arguments.data_root, arguments.teachers_root))
    return Places(data, teachers)


def _variable(name: str) -> str:
    return f"DFKD_BENCH_{name}"


def _split(text: str) -> tuple[str, str]:
    """Return a prefix such as `mnist:`, or "", and the path behind it."""
    prefix, colon, path = text.rpartition(":")
    return prefix + colon, path
