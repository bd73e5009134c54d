"""`dfkd recipes`: what there is to choose from, how it is written, and a copy to change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.application import Command, CommandGroup
from dfkd_cli.cli.arguments import Overrides
from dfkd_cli.cli.completion import complete_recipe
from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.recipe.listing import RecipeEntry, RecipeList, ShownRecipe

recipes = typer.Typer(cls=CommandGroup, invoke_without_command=True)
NEEDS = {
    "batchnorm": "a teacher with BatchNorm",
    "embedding": "a teacher with a last linear layer",
    "stages": "a teacher with feature maps",
    "pool": "unlabelled pictures (--pool)",
}
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a recipe, or a YAML file.", autocompletion=complete_recipe)
]


@recipes.callback()
def list_all(ctx: typer.Context, as_json: options.Json = False) -> object:
    """List the recipes: what each needs and costs, when to use it, and what was measured with it."""
    if ctx.invoked_subcommand is not None:
        ctx.default_map = {ctx.invoked_subcommand: {"as_json": as_json}}
        return None

    from dfkd_cli.recipe.listing import list_recipes

    listed = list_recipes()
    if as_json:
        return listed
    _print_table(listed)
    return None


@recipes.command(cls=Command)
def show(
    name: Name,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Every value that a run would use, defaults too.")
    ] = False,
    overrides: Overrides = None,
    as_json: options.Json = False,
) -> object:
    """Print a recipe as it is written, or with --resolved or --set as a run would use it."""
    from dfkd_cli.recipe.listing import show_recipe

    if resolved or overrides:
        from dfkd_cli.recipe.recipe import load_recipe

        text = load_recipe(name, list(overrides or [])).to_yaml()
        shown = show_recipe(name, text)
    else:
        shown = show_recipe(name)
    if as_json:
        _check_json(shown)
        return shown
    print(shown.yaml, end="")
    return None


@recipes.command(cls=Command)
def copy(
    name: Name,
    to: Annotated[Path, typer.Argument(metavar="FILE", help="The copy, e.g. my.yaml; must not exist yet.")],
    as_json: options.Json = False,
) -> object:
    """Copy a recipe into a file of your own, comments included, for `--recipe FILE`."""
    from dfkd_cli.recipe.listing import copy_recipe

    copied = copy_recipe(name, to)
    if as_json:
        return copied
    print(f"written {to}; change it, then: dfkd check {to}")
    return None


def _check_json(shown: ShownRecipe) -> None:
    """Raises UsageError for values that YAML can write and JSON cannot: not finite, or inside themselves."""
    try:
        json.dumps(shown.values, allow_nan=False)
    except ValueError as error:
        raise UsageError(
            f"{shown.name} has a value that JSON cannot hold, such as .nan; "
            f"find it with dfkd check {shown.name}, or leave --json out"
        ) from error


def _print_table(listed: RecipeList) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 1, 0))
    for title in ("recipe", "needs", "cost", "when to use", "measured"):
        table.add_column(title, overflow="fold", no_wrap=title == "recipe")
    for entry in listed.recipes:
        table.add_row(entry.name, _needs(entry), entry.cost, entry.use_when, entry.measured)
    Console(highlight=False, markup=False).print(table)
    print("dfkd recipes show NAME prints one, dfkd recipes copy NAME my.yaml makes it yours.")


def _needs(entry: RecipeEntry) -> str:
    return ", ".join(NEEDS[need] for need in entry.needs) or "any teacher"
