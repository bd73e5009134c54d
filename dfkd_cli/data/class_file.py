"""The file of `--classes`: the names of a network's classes by number."""

import json
from pathlib import Path

from dfkd_cli.errors import UsageError
from dfkd_cli.networks.class_names import class_names, described_classes

_LARGEST = 2**24
_EXPECTED = 'one class name per line, or JSON: ["cat", "dog"], {"0": "cat", "1": "dog"} or {"cat": 0, "dog": 1}'


def read_class_file(path: str, num_classes: int) -> tuple[str, ...]:
    """Return the class names in a text file with one name per line, or in a JSON file.

    Raises UsageError when it cannot be read, when a name is empty or occurs twice, or when they are not `num_classes`.
    """
    try:
        if Path(path).stat().st_size > _LARGEST:
            raise UsageError(f"--classes {path} is too large; expected {_EXPECTED}")
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise UsageError(f"--classes {path}: {reason}; expected {_EXPECTED}") from error
    names = _from_json(text, path) if text.lstrip()[:1] in ("[", "{") else _from_lines(text, path)
    if len(names) != num_classes:
        raise UsageError(f"--classes {path} has {len(names)} names, the network has {num_classes} classes")
    return names


def _from_lines(text: str, path: str) -> tuple[str, ...]:
    names: dict[str, int] = {}  # to the number of its line
    for number, line in enumerate(text.rstrip().splitlines(), start=1):
        name = line.strip()
        if not name:
            raise UsageError(f"--classes {path}: line {number} is empty; expected {_EXPECTED}")
        if name in names:
            raise UsageError(f"--classes {path}: {name} is in line {names[name]} and in line {number}")
        names[name] = number
    return tuple(names)


def _from_json(text: str, path: str) -> tuple[str, ...]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--classes {path} is no valid JSON; expected {_EXPECTED}") from error
    names = class_names(content) or next(described_classes(content), None)
    if names is None:
        raise UsageError(f"--classes {path}: its JSON does not list different class names; expected {_EXPECTED}")
    return names
