"""The descriptions, texts and copies of recipes. Imports no torch."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_cli.config.values import Problem, build
from dfkd_cli.errors import UsageError
from dfkd_cli.recipe.file import About, RecipeFile, recipe_text
from dfkd_cli.recipe.shipped import DEFAULTS, defaults_text, shipped_recipes

_UNDESCRIBED: dict[str, Any] = {"summary": "", "needs": [], "use_when": "", "cost": "", "measured": ""}


@dataclass(frozen=True)
class RecipeEntry(About):
    """One recipe of the list."""

    name: str
    method: str


@dataclass(frozen=True)
class RecipeList:
    """What `dfkd recipes --json` prints."""

    recipes: tuple[RecipeEntry, ...]


@dataclass(frozen=True)
class ShownRecipe:
    """What `dfkd recipes show --json` prints."""

    name: str
    yaml: str  # the text of the file, or with --resolved or --set all values
    values: dict[str, Any]  # the same, parsed


@dataclass(frozen=True)
class CopiedRecipe:
    """What `dfkd recipes copy --json` prints."""

    name: str
    written: str


def list_recipes() -> RecipeList:
    """Return the shipped recipes by name. Raises RecipeError when the description of one is wrong."""
    return RecipeList(tuple(_entry(name) for name in shipped_recipes()))


def show_recipe(name: str, resolved: str | None = None) -> ShownRecipe:
    """Return the text of a recipe's file, or `resolved` in its place. Raises UsageError when there is no such recipe.

    The name "defaults" stands for the values that all recipes inherit.
    """
    text = defaults_text() if name == DEFAULTS and resolved is None else resolved
    file = RecipeFile(name, text)
    return ShownRecipe(name, file.text, file.values)


def copy_recipe(name: str, to: Path) -> CopiedRecipe:
    """Write the text of a recipe's file to `to`. Raises UsageError when `to` exists or cannot be written."""
    text = recipe_text(name)
    try:
        with open(to, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{to} exists; choose another name") from error
    except OSError as error:
        raise UsageError(f"{to} cannot be written: {os.strerror(error.errno or 0)}") from error
    return CopiedRecipe(name, str(to))


def _entry(name: str) -> RecipeEntry:
    file = RecipeFile(name)
    problems: list[Problem] = []
    about = build(About, file.values.get("about", _UNDESCRIBED), "about", problems)
    if problems:
        raise file.error(problems)
    return RecipeEntry(**vars(about), name=name, method=str(file.values.get("method")))
