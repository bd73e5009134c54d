"""A recipe: which method, and every value it runs with. Read from YAML, changed by --set, written back resolved."""

import hashlib
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from dfkd_cli.augmentation import Augmentation
from dfkd_cli.engine import TrainConfig
from dfkd_cli.errors import UsageError
from dfkd_cli.methods import METHODS
from dfkd_cli.recipe_values import build, convert, did_you_mean

SECTIONS = ("method", "train", "augmentation", "options")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, besides teacher, student, seed and machine."""

    method: str
    train: TrainConfig
    augmentation: Augmentation
    options: Any  # the method's own options_type

    def to_yaml(self) -> str:
        """The recipe with every value written out; reading it again gives the same recipe."""
        return yaml.safe_dump(asdict(self), sort_keys=False)

    def sha256(self) -> str:
        """Fingerprint of all values."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()


def shipped_recipes() -> dict[str, str]:
    """Name -> YAML text of the recipes that come with dfkd."""
    folder = resources.files("dfkd_cli") / "recipes"
    if not folder.is_dir():  # a checkout: recipes/ lies beside the package
        folder = Path(__file__).parent.parent / "recipes"
    return {
        Path(entry.name).stem: entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yaml")
    }


def load_recipe(name_or_path: str, overrides: list[str]) -> Recipe:
    """The recipe of this name or in this file, with `section.key=value` overrides.

    Raises UsageError naming every unknown key, wrong type and missing value.
    """
    values = _parse(_read(name_or_path), name_or_path)
    for override in overrides:
        _override(values, override)
    problems: list[str] = []
    recipe = _build(values, problems)
    if recipe is None or problems:
        raise UsageError(f"recipe {name_or_path}: " + "; ".join(problems))
    return recipe


def _read(name_or_path: str) -> str:
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"} and not path.exists():
        known = ", ".join(shipped)
        raise UsageError(f"no recipe '{name_or_path}'{did_you_mean(name_or_path, shipped)}; known: {known}, or a file")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {name_or_path} cannot be read: {error}") from error


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"recipe {name} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UsageError(f"recipe {name} must be a mapping with the keys {', '.join(SECTIONS)}")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    """Puts one `a.b=c` into the nested values; whether the key exists is checked when the recipe is built."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise UsageError(f"--set {override}: write section.key=value, e.g. --set train.lr=0.05")
    *path, last = dotted.split(".")
    section = values
    for part in path:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise UsageError(f"--set {override}: '{part}' is a value, not a section")
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override}: the value is not YAML") from error


def _build(values: dict[str, Any], problems: list[str]) -> Recipe | None:
    for key in values.keys() - set(SECTIONS):
        problems.append(f"unknown key '{key}'{did_you_mean(str(key), SECTIONS)}")
    method = convert(str, values.get("method"), "method", problems)
    if method not in METHODS:
        problems.append(f"unknown method {method!r}{did_you_mean(str(method), METHODS)}; known: {', '.join(METHODS)}")
        return None
    train = build(TrainConfig, values.get("train", {}), "train", problems)
    augmentation = build(Augmentation, values.get("augmentation", {}), "augmentation", problems)
    options = build(METHODS[method].options_type, values.get("options", {}), "options", problems)
    return None if problems else Recipe(method, train, augmentation, options)
