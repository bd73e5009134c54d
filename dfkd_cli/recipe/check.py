"""`dfkd check` without its flags."""

from dataclasses import dataclass

from dfkd_cli.recipe.file import Mistake, RecipeError
from dfkd_cli.recipe.recipe import load_recipe


@dataclass(frozen=True)
class Checked:
    """What `dfkd check --json` prints."""

    recipe: str  # as the user typed it
    method: str | None  # None, as the hash, for a recipe with mistakes
    sha256: str | None  # of all values, as in report.json
    mistakes: tuple[Mistake, ...]


def check_recipe(name_or_path: str, overrides: list[str]) -> Checked:
    """Return the recipe's method and hash. Raises RecipeError with all mistakes and the document of --json."""
    try:
        recipe = load_recipe(name_or_path, overrides)
        load_recipe(name_or_path, overrides, "segmentation")
    except RecipeError as error:
        error.facts = Checked(name_or_path, None, None, tuple(error.mistakes))
        raise
    return Checked(name_or_path, recipe.method, recipe.sha256(), ())
