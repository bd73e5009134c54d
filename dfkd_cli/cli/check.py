"""`dfkd check`: list the mistakes in a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.arguments import Overrides
from dfkd_cli.cli.completion import complete_recipe


def check(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or a recipe's name.", autocompletion=complete_recipe)
    ],
    overrides: Overrides = None,
    as_json: options.Json = False,
) -> object:
    """Check a recipe and print each mistake with its line and a suggestion. compress does the same."""
    from dfkd_cli.recipe.check import check_recipe

    checked = check_recipe(recipe, list(overrides or []))
    if as_json:
        return checked
    print(f"{recipe}: no mistakes, method {checked.method}, sha256 {checked.sha256}")
    return None
