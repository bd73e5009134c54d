"""A recipe: which method, and every value it runs with. Read from YAML, changed by --set, written back resolved."""

import hashlib
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import yaml

from dfkd_cli.config.values import Problem, build, did_you_mean
from dfkd_cli.methods import METHODS
from dfkd_cli.recipe.file import SECTIONS, About, RecipeFile
from dfkd_cli.training.augmentation import Augmentation
from dfkd_cli.training.engine import TrainConfig


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


def load_recipe(name_or_path: str, overrides: list[str]) -> Recipe:
    """The recipe of this name or in this file, with `section.key=value` overrides.

    Raises UsageError; a RecipeError names every unknown key, wrong type, value out of range and missing value.
    """
    file = RecipeFile(name_or_path)
    for override in overrides:
        file.change(override)
    problems = list(file.repeated)
    recipe = _build(file.values, problems)
    if problems:
        raise file.error(problems)
    return recipe


def _build(values: dict[str, Any], problems: list[Problem]) -> Recipe:
    for key in values.keys() - set(SECTIONS):
        problems.append(Problem(str(key), f"unknown key '{key}'{did_you_mean(str(key), SECTIONS)}"))
    if "about" in values:
        build(About, values["about"], "about", problems)
    method = str(values.get("method", ""))
    if method not in METHODS:
        told = f"unknown method '{method}'{did_you_mean(method, METHODS)}" if method else "missing key 'method'"
        problems.append(Problem("method", f"{told}; known: {', '.join(METHODS)}"))
    train = _section(TrainConfig, "train", values, problems)
    augmentation = _section(Augmentation, "augmentation", values, problems)
    options = None
    for meant in get_close_matches(method, METHODS, n=1):  # a misspelt method has options to check all the same
        options = _section(METHODS[meant].options_type, "options", values, problems)
    return Recipe(method, train, augmentation, options)


def _section(kind: type, name: str, values: dict[str, Any], problems: list[Problem]) -> Any:
    if name not in values:
        problems.append(Problem(name, f"missing section '{name}'"))
        return None
    return build(kind, values[name], name, problems)
