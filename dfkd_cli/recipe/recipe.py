"""A recipe: a method and all values of a run, read from YAML, changed by --set and written with all values."""

import hashlib
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import yaml

from dfkd_cli.config.values import Problem, build, did_you_mean
from dfkd_cli.methods import METHODS
from dfkd_cli.narrowing.config import NarrowingConfig
from dfkd_cli.networks.tasks import TaskName
from dfkd_cli.recipe.file import SECTIONS, About, RecipeFile, inherited_values
from dfkd_cli.training.augmentation import Augmentation
from dfkd_cli.training.config import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a run besides teacher, student, seed and machine."""

    method: str
    train: TrainConfig
    augmentation: Augmentation
    narrowing: NarrowingConfig  # of students that begin as the teacher
    options: Any  # of the type that the method declares

    def to_yaml(self) -> str:
        """Return YAML with all values; the recipe that is read from it is equal to this one."""
        return yaml.safe_dump(asdict(self), sort_keys=False)

    def sha256(self) -> str:
        """Return the hash of all values, in hexadecimal."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()


def load_recipe(name_or_path: str, overrides: list[str], task: TaskName = "classification") -> Recipe:
    """Return the recipe of this name or in this file, with `section.key=value` overrides.

    Values that neither sets are those of `recipes/defaults.yaml`. For segmentation the section `segmentation` of both
    files replaces values. Raises UsageError; a RecipeError names every unknown
    key, wrong type, value out of range and missing value.
    """
    file = RecipeFile(name_or_path)
    file.inherit(inherited_values(), task == "segmentation")
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
        text = f"unknown method '{method}'{did_you_mean(method, METHODS)}" if method else "missing key 'method'"
        problems.append(Problem("method", f"{text}; choose one of: {', '.join(METHODS)}"))
    train = _section(TrainConfig, "train", values, problems)
    augmentation = _section(Augmentation, "augmentation", values, problems)
    narrowing = _section(NarrowingConfig, "narrowing", values, problems)
    options = None
    for meant in get_close_matches(method, METHODS, n=1):  # the options of a misspelt method are checked too
        options = _section(METHODS[meant].options, "options", values, problems)
    return Recipe(method, train, augmentation, narrowing, options)


def _section(kind: type, name: str, values: dict[str, Any], problems: list[Problem]) -> Any:
    if name not in values:
        problems.append(Problem(name, f"missing section '{name}'"))
        return None
    return build(kind, values[name], name, problems)
