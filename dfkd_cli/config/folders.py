"""The folder of a run that names none, and that of an unfinished run."""

import re
from pathlib import Path

LONGEST = 60  # characters of the teacher's name


def default_folder(teacher: str, student: str) -> Path:
    """Return a new folder in the working directory, named after teacher and student: `resnet20-0.5`.

    A number is appended while a result or an unfinished run of that name exists.
    """
    name = Path(teacher.partition(":")[2] or teacher).name
    stem = re.sub(r"\.(pth?|pt2|th|tar|safetensors|bin)$", "", re.sub(r"\.tar$", "", name))
    words = "-".join(filter(None, (_plain(stem)[:LONGEST] or "teacher", _plain(student))))
    numbers = (f"{words}{suffix}" for suffix in ("", *(f"-{count}" for count in range(2, 10_000))))
    return next(path for path in map(Path, numbers) if not path.exists() and not unfinished_folder(path).exists())


def unfinished_folder(path: Path) -> Path:
    """Return the hidden folder beside the output folder `path` that holds its run until it is complete."""
    return path.with_name(f".{path.name}.unfinished")


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text.replace("%", "")).strip("-.")
