"""Finds the file with the weights of a source."""

from pathlib import Path

from dfkd_cli.loading.hub_folder import find_weights


def weights_file(source: str) -> Path | None:
    """Return the file itself, or the one inside a folder; None for a name without a local file."""
    path = Path(source.removeprefix("local-dir:"))
    path = find_weights(path) if path.is_dir() else path
    return path if path.is_file() else None


def file_bytes(source: str) -> int | None:
    """Return the size of that file in bytes; None when there is none."""
    path = weights_file(source)
    return None if path is None else path.stat().st_size
