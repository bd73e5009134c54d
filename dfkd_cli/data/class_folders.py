"""A folder with one sub-folder of image files per class."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from dfkd_cli.data.class_numbers import ClassOrder, Numbering, by_name, in_order, number_by_order, shown, strange_to
from dfkd_cli.data.image_files import (
    HIDDEN,
    count_hidden_folders,
    described,
    image_files_below,
    is_image_folder,
    why_no_image,
)
from dfkd_cli.errors import UsageError

_SPLITS = frozenset(
    {"train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev", "holdout", "held-out"}
)
_ALL_NAMES = "give --classes FILE with the folder names of all classes in the network's order"
_OUTSIDE = "outside the class folders"
_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class ClassFolders:
    """The class folders below a folder, sorted by name, and their image files."""

    where: str  # with the flag, for messages
    root: Path
    names: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]  # one entry per class folder
    passed_over: tuple[Counter[str], ...]  # one entry per class folder
    passed_over_beside: Counter[str]

    def all_passed_over(self) -> Counter[str]:
        """Return the numbers of files that are no images of a class, by reason."""
        return sum(self.passed_over, self.passed_over_beside)


def find_class_folders(where: str, root: Path) -> ClassFolders:
    """Return the class folders of `root`. Raises UsageError without class folders, or without images in them."""
    entries = _entries(root, where)
    inner = [entry.name for entry in entries if entry.is_dir()]
    folders = [root / name for name in inner if is_image_folder(name)]
    if not folders:
        problem = "its image files are not in sub-folders" if image_files_below(root) else "it is empty"
        raise UsageError(f"{where}: {problem}; evaluation needs one sub-folder of image files per class")
    _check_different(where, folders)
    beside = Counter(why_no_image(str(entry)) or _OUTSIDE for entry in entries if not entry.is_dir())
    count_hidden_folders(root, inner, beside)
    passed_over: tuple[Counter[str], ...] = tuple(Counter() for _ in folders)
    files = tuple(tuple(image_files_below(*pair)) for pair in zip(folders, passed_over, strict=True))
    found = ClassFolders(where, root, tuple(folder.name for folder in folders), files, passed_over, beside)
    if not any(files):
        raise UsageError(f"{where}: no image files in its sub-folders; {described(found.all_passed_over())}")
    return found


def number_folders(found: ClassFolders, num_classes: int, names: Sequence[str], order: ClassOrder | None) -> Numbering:
    """Return the class numbers of the folders, by the class names of the network where these are known.

    Without names the folders are all classes of the network, in the order of their names. Raises UsageError when they
    cannot be, and when names and `order` contradict each other.
    """
    names = names or _imagenet_names(found.names, num_classes)
    if names:
        numbers = by_name([(name,) for name in found.names], names)
        # With names in other words than those of the folders, the user's order decides.
        if order is None or any(number is not None for number in numbers):
            return _number_by_name(found, numbers, names, order)
    _check_level(found, num_classes)
    if len(found.names) != num_classes:
        raise UsageError(_count_message(found, num_classes))
    _check_contents(found)
    return number_by_order(found.names, order, found.where)


def _number_by_name(
    found: ClassFolders, numbers: Sequence[int | None], names: Sequence[str], order: ClassOrder | None
) -> Numbering:
    strange = [name for name, number in zip(found.names, numbers, strict=True) if number is None]
    if strange:
        other = len(strange) == len(found.names) == len(names)
        order_too = ", or --class-order if they are other names of the same classes" if other else ""
        raise UsageError(f"{found.where}: {strange_to(names, strange)}; {_hint(found) or _ALL_NAMES + order_too}")
    known = [number for number in numbers if number is not None]
    if len(set(known)) < len(known):
        twice = [name for name, number in zip(found.names, known, strict=True) if known.count(number) > 1]
        raise UsageError(f"{found.where}: {shown(twice)} are folders of one class; put their image files together")
    place = dict(zip(found.names, known, strict=True))
    if order is not None and [place[name] for name in in_order(found.names, order)] != sorted(known):
        raise UsageError(
            f"{found.where}: --class-order {order} contradicts the class names of the network ({shown(names)}); "
            "leave the option out"
        )
    return Numbering(tuple(known), tuple(names), "class names of the network")


def _entries(root: Path, where: str) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except OSError as error:
        raise UsageError(f"{where}: cannot be listed: {error.strerror}") from error


def _check_different(where: str, folders: Sequence[Path]) -> None:
    """Raise UsageError when two class folders are the same one, through links."""
    real: dict[str, str] = {}
    for folder in folders:
        other = real.setdefault(os.path.realpath(folder), folder.name)
        if other != folder.name:
            raise UsageError(f"{where}: the class folders {other} and {folder.name} are the same folder; remove one")


def _check_level(found: ClassFolders, num_classes: int) -> None:
    """Raise UsageError when the folders are probably parts of a data set, each with class folders of its own."""
    if len(found.names) == 1:
        return
    inside = [_folders_in(found.root / name) for name in found.names]
    direct = [any(file.parent == found.root / name for file in files) for name, files in _pairs(found)]
    splits = [_is_split(name) for name in found.names]
    parts = any(split and of and not files for split, of, files in zip(splits, inside, direct, strict=True))
    # A class may have sub-folders of its own. Only as many of them as there are classes look like classes.
    below = sorted(set().union(*inside))
    nested = not any(direct) and len(found.names) == len(below) == num_classes
    if parts or all(splits) or nested:
        kind = "have the names of parts of a data set" if parts or all(splits) else f"all have {shown(below)} in them"
        whether = " (or --classes FILE, if they are classes)" if len(found.names) == num_classes else ""
        raise UsageError(
            f"{found.where}: its folders {shown(found.names)} {kind}; "
            f"{_hint(found) or 'give the folder that has the class folders'}{whether}"
        )


def _check_contents(found: ClassFolders) -> None:
    """Raise UsageError for a folder with files of which none is an image: it may be no class, which shifts all others.

    An empty folder is a class without images.
    """
    for name, files, passed_over in zip(found.names, found.files, found.passed_over, strict=True):
        if not files and any(reason not in HIDDEN for reason in passed_over):
            raise UsageError(
                f"{found.where}: the folder {name} has files but no image, {described(passed_over)}; if it is no "
                f"class, move it away; if it is one, {_ALL_NAMES}"
            )


def _count_message(found: ClassFolders, num_classes: int) -> str:
    count = len(found.names)
    classes = f"{count} {'class' if count == 1 else 'classes'} ({shown(found.names)})"
    message = f"{found.where} has {classes}, the network has {num_classes}"
    empty = [name for name, files in _pairs(found) if not files]
    if count > num_classes and empty:
        return f"{message}; these have no images: {shown(empty)}"
    if hint := _hint(found):
        return f"{message}; {hint}"
    return f"{message}; if classes have no images here, {_ALL_NAMES}" if count < num_classes else message


def _hint(found: ClassFolders) -> str | None:
    """Return a question that names a folder in `root` which probably has the class folders, if there is one."""
    candidates = [name for name in found.names if _is_split(name)] or (found.names if len(found.names) == 1 else ())
    candidates = sorted(candidates, key=lambda name: name.lower().startswith(("train", "dev")))
    inner = next((found.root / name for name in candidates if _folders_in(found.root / name)), None)
    return inner and f"did you mean {inner}?"


def _is_split(name: str) -> bool:
    return name.lower() in _SPLITS


def _folders_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and is_image_folder(entry.name))


def _pairs(found: ClassFolders) -> list[tuple[str, tuple[Path, ...]]]:
    return list(zip(found.names, found.files, strict=True))


def _imagenet_names(folders: Sequence[str], num_classes: int) -> Sequence[str]:
    """Return the WordNet ids of the ImageNet variant with so many classes if all folders are among them, else ()."""
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None or not all(_WORDNET.fullmatch(name) for name in folders):
        return ()
    names = ImageNetInfo(subset).label_names()
    return names if set(folders) <= set(names) else ()
