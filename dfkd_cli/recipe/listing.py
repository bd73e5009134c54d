"""What recipes say of themselves, read without torch."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_cli.config.values import Problem, build
from dfkd_cli.errors import UsageError
from dfkd_cli.recipe.file import About, RecipeFile, shipped_recipes

_UNTOLD: dict[str, Any] = {"summary": "", "needs": [], "use_when": "", "cost": "", "measured": ""}


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
    yaml: str  # as written, or resolved
    values: dict[str, Any]  # the same, parsed


@dataclass(frozen=True)
class CopiedRecipe:
    """What `dfkd recipes copy --json` prints."""

    name: str
    written: str


def list_recipes() -> RecipeList:
    """The shipped recipes by name. Raises RecipeError when one describes itself wrongly."""
    return RecipeList(tuple(_entry(name) for name in shipped_recipes()))


def show_recipe(name: str, resolved: str | None = None) -> ShownRecipe:
    """The recipe as its file has it, or in the `resolved` text. Raises UsageError when there is none."""
    file = RecipeFile(name, resolved)
    return ShownRecipe(name, file.text, file.values)


def copy_recipe(name: str, to: Path) -> CopiedRecipe:
    """Writes the recipe's text into the file `to`. Raises UsageError when it exists or cannot be written."""
    text = RecipeFile(name).text
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
    about = build(About, file.values.get("about", _UNTOLD), "about", problems)
    if problems:
        raise file.error(problems)
    return RecipeEntry(**vars(about), name=name, method=str(file.values.get("method")))
