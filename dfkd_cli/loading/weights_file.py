"""Which file on disk holds the weights of what the user named."""

from pathlib import Path

from dfkd_cli.loading.hub_folder import find_weights


def weights_file(source: str) -> Path | None:
    """The file itself, or the one inside a folder; None for a name whose weights come from elsewhere."""
    path = Path(source.removeprefix("local-dir:"))
    path = find_weights(path) if path.is_dir() else path
    return path if path.is_file() else None


def file_bytes(source: str) -> int | None:
    """Size of that file; None where there is none."""
    path = weights_file(source)
    return None if path is None else path.stat().st_size
