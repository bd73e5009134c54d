"""The recipe files that come with dfkd, and the values that every recipe inherits."""

from importlib import resources
from pathlib import Path
from typing import Any

DEFAULTS = "defaults"  # recipes/defaults.yaml: inherited by every recipe, and no recipe itself


def shipped_recipes() -> dict[str, str]:
    """Return the YAML text of each recipe that comes with dfkd, by name in alphabetical order."""
    return {name: text for name, text in _files().items() if name != DEFAULTS}


def defaults_text() -> str:
    """Return the YAML text of the values that every recipe inherits."""
    return _files()[DEFAULTS]


def merge(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return `defaults` with each value of `values` in place of its own; sections are merged key by key."""
    merged = dict(defaults)
    for key, value in values.items():
        inherited = merged.get(key)
        merged[key] = merge(inherited, value) if isinstance(inherited, dict) and isinstance(value, dict) else value
    return merged


def _files() -> dict[str, str]:
    folder = resources.files("dfkd_cli") / "recipes"
    if not folder.is_dir():  # in a checkout, recipes/ is beside the package
        folder = Path(__file__).parents[2] / "recipes"
    return {
        Path(entry.name).stem: entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yaml")
    }
