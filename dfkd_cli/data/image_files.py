"""Image files: finding them."""

import os
from functools import cache
from pathlib import Path


@cache
def suffixes() -> tuple[str, ...]:
    """Return the lower-case suffixes of the names of image files."""
    from torchvision.datasets.folder import (
        IMG_EXTENSIONS,
    )  # takes seconds to import, and checking a recipe does not need it

    return IMG_EXTENSIONS


def is_image_file(name: str) -> bool:
    """Return whether a file of this name is an image file; hidden files are not."""
    return name.lower().endswith(suffixes()) and not name.startswith(".")


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


def image_files_below(folder: Path) -> list[Path]:
    """Return the image files in and below `folder`, sorted.

    Links are followed, except to a folder that was visited before or that contains `folder`.
    """
    visited, found = enclosing_folders(folder), []
    for parent, inner, names in os.walk(folder, followlinks=True):
        found += [Path(parent) / name for name in names if is_image_file(name)]
        visible = [name for name in sorted(inner) if not name.startswith(".")]
        inner[:] = [name for name in visible if is_new_folder(Path(parent) / name, visited)]
    return sorted(found)
