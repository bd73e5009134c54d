"""Image files: finding them, and telling them from other files."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from PIL import Image

from dfkd_cli.errors import UsageError

# Formats of which Pillow reads the header only, or which it hands to another program (EPS: Ghostscript).
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PALM", "PDF", "WMF"})
# Reasons why a file is passed over whatever it contains.
HIDDEN = ("hidden or written by the system", "in hidden folders or folders of the system")
# What systems and network drives leave beside images: thumbnails, indices, waste.
_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@tmp", "#recycle", "@recycle", "__macosx", "__pycache__", "$recycle.bin", "lost+found"}
    | {"system volume information", "@recently-snapshot", "#snapshot"}
)
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"})


@cache
def formats() -> tuple[str, ...]:
    """Return the names of the image formats that Pillow decodes by itself."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _NOT_DECODED)


@cache
def suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of the names of image files."""
    known = set(formats())
    return frozenset({".mpo", *(suffix for suffix, name in Image.registered_extensions().items() if name in known)})


def why_no_image(path: str) -> str | None:
    """Return why the file is passed over, None for an image file: by its suffix, or without a suffix by its content.

    Files that are hidden or that systems write beside images are none.
    """
    name = os.path.basename(path)
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith(".") or name.lower() in _SYSTEM_FILES:
        return HIDDEN[0]
    if suffix in suffixes() or (not suffix and _has_an_image(path)):
        return None
    return f"with {suffix}, which is no image format of Pillow" if suffix else "without a suffix and without an image"


def _has_an_image(path: str) -> bool:
    try:
        with Image.open(path, formats=formats()):
            return True
    except Exception:  # Pillow raises errors of many types on files that are no images
        return False


def is_image_folder(name: str) -> bool:
    """Return whether a folder of this name can have image files: it is neither hidden nor a folder of the system."""
    return not name.startswith(".") and name.lower() not in _SYSTEM_FOLDERS


def enclosing_folders(folder: Path) -> set[str]:
    """Return the real paths of `folder` and of all its parents: the initial `visited` of `is_new_folder`."""
    path = os.path.realpath(folder)
    return {path, *map(str, Path(path).parents)}


def is_new_folder(folder: Path | str, visited: set[str]) -> bool:
    """Return whether the real path of `folder` is not in `visited`, and add it.

    A walk that follows links enters no folder twice when it asks this first.
    """
    path = os.path.realpath(folder)
    new = path not in visited
    visited.add(path)
    return new


def image_files_below(folder: Path, passed_over: Counter[str] | None = None) -> list[Path]:
    """Return the image files in and below `folder`, sorted.

    Links are followed, except to a folder that was visited before or that contains `folder`. The other files are
    counted in `passed_over` by reason. Raises UsageError for a folder that cannot be listed.
    """
    visited, found = enclosing_folders(folder), []
    counted: Counter[str] = Counter()
    for parent, inner, names in os.walk(folder, followlinks=True, onerror=_cannot_list):
        for path in (os.path.join(parent, name) for name in names):
            if (reason := why_no_image(path)) is None:
                found.append(Path(path))
            else:
                counted[reason] += 1
        count_hidden_folders(parent, inner, counted)
        visible = [name for name in sorted(inner) if is_image_folder(name)]
        inner[:] = [name for name in visible if is_new_folder(Path(parent) / name, visited)]
    if passed_over is not None:
        passed_over.update(counted)
    return sorted(found)


def described(passed_over: Mapping[str, int]) -> str:
    """Return how many files were passed over, and why; for none the formats that are read."""
    if not passed_over:
        return f"the formats that are read: {' '.join(sorted(suffixes()))}"
    count = sum(passed_over.values())
    reasons = "; ".join(f"{number:,} {reason}" for reason, number in sorted(passed_over.items()))
    return f"{count:,} {'file was' if count == 1 else 'files were'} passed over ({reasons})"


def count_hidden_folders(parent: Path | str, names: Iterable[str], passed_over: Counter[str]) -> None:
    """Count the files in those of these folders that are hidden or of the system."""
    for name in names:
        inside = 0 if is_image_folder(name) else sum(len(files) for *_, files in os.walk(os.path.join(parent, name)))
        if inside:
            passed_over[HIDDEN[1]] += inside


def _cannot_list(error: OSError) -> None:
    raise UsageError(f"cannot list the folder {error.filename}: {error.strerror}") from error
