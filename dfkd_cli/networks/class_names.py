"""Class names in the descriptions that files carry: checkpoints, `config.json`, metadata of archives."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# In the order in which they are tried: dfkd, timm, transformers, torchvision and the habits of training scripts.
_KEYS = (
    "class_names",
    "label_names",
    "id2label",
    "label2id",
    "class_to_idx",
    "idx_to_class",
    "classes",
    "CLASSES",
    "categories",
    "labels",
    "names",
)
_NESTED = ("pretrained_cfg", "meta", "dataset_meta", "metadata", "args", "config", "hyper_parameters", "hparams")
_DEEPEST = 3
_PLACEHOLDER = re.compile(r"label_\d+", re.IGNORECASE)  # what transformers writes when nobody gave names


def class_names(value: Any) -> tuple[str, ...] | None:
    """Return the names by class number of a list of names, {number: name} or {name: number}; None for anything else.

    The numbers of a mapping are all from 0 up. A JSON text is read first. Names that occur twice and the placeholders
    LABEL_0, LABEL_1, ... are no names.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, Mapping):
        value = _by_number(value)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) < 2:
        return None
    names = tuple(_first(entry) for entry in value)
    if not all(isinstance(name, str) and name.strip() for name in names) or len(set(names)) != len(names):
        return None
    return None if all(_PLACEHOLDER.fullmatch(name) for name in names) else names


def described_classes(description: Any) -> Iterator[tuple[str, ...]]:
    """Yield the class names that a description states under one of the usual keys, also in its usual sections."""
    level = [description]
    for _ in range(_DEEPEST):
        sections = [_as_mapping(section) for section in level]
        for section in sections:
            yield from (names for key in _KEYS if (names := class_names(section.get(key))) is not None)
        level = [section[key] for section in sections for key in _NESTED if key in section]


def _by_number(value: Mapping[Any, Any]) -> list[Any] | None:
    """Return the names of {number: name} or {name: number} in the order of the numbers, which are 0, 1, 2, ..."""
    numbered = {_number(key): name for key, name in value.items()}
    # Names can be digits too: {"0": 0, "1": 1, "10": 2, ...} are folders in the order of text.
    if None in numbered or all(isinstance(number, int) for number in value.values()):
        numbered = {_number(number): name for name, number in value.items()}
    if len(numbered) != len(value) or set(numbered) != set(range(len(value))):
        return None
    return [numbered[number] for number in range(len(value))]


def _number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None


def _first(entry: Any) -> Any:
    """Return the entry, or the first of several names: ["n01440764", "tench"]."""
    return entry[0] if isinstance(entry, list | tuple) and entry else entry


def _as_mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return vars(value) if hasattr(value, "__dict__") and not isinstance(value, type) else {}
