"""`dfkd recipes`: list recipes, print one, and copy one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.application import Command, CommandGroup
from dfkd_cli.cli.arguments import DEFAULT_RECIPE, Overrides
from dfkd_cli.cli.completion import complete_recipe
from dfkd_cli.cli.wrapping import print_rows
from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.recipe.listing import RecipeEntry, ShownRecipe

recipes = typer.Typer(cls=CommandGroup, invoke_without_command=True)
NEEDS = {
    "stages": "a teacher with feature maps",
    "pool": "unlabelled images (--pool)",
    "one_answer": "a teacher with one answer per image",
}
COLUMN = 12  # where the descriptions begin
FOOTER = """\
dfkd recipes --long          what each recipe needs, costs and has reached
dfkd recipes show NAME       the values of a recipe, with comments
dfkd inspect TEACHER         which recipes fit a teacher"""
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a recipe, or a YAML file.", autocompletion=complete_recipe)
]


@recipes.callback()
def list_all(
    ctx: typer.Context,
    long: Annotated[bool, typer.Option("--long", help="Also list needs, cost and a measured result.")] = False,
    as_json: options.Json = False,
) -> object:
    """List the recipes: what each does and when to use it."""
    if ctx.invoked_subcommand is not None:
        ctx.default_map = {ctx.invoked_subcommand: {"as_json": as_json}}
        return None

    from dfkd_cli.recipe.listing import list_recipes

    listed = list_recipes()
    if as_json:
        return listed
    for entry in listed.recipes:
        print_rows(_details(entry) if long else _summary(entry), COLUMN)
        print()
    print(FOOTER)
    return None


@recipes.command(cls=Command)
def show(
    name: Name,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print all values of a run, also the inherited ones.")
    ] = False,
    overrides: Overrides = None,
    task: Annotated[
        Literal["classification", "segmentation"],
        typer.Option(help="With --resolved or --set: of the teacher that the values are for."),
    ] = "classification",
    as_json: options.Json = False,
) -> object:
    """Print the file of a recipe, or with --resolved or --set all values that a run uses.

    A file holds only what differs from the values that all recipes inherit: `dfkd recipes show defaults`.
    """
    from dfkd_cli.recipe.listing import show_recipe

    if resolved or overrides:
        from dfkd_cli.recipe.recipe import load_recipe

        text = load_recipe(name, list(overrides or []), task).to_yaml()
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
    to: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, e.g. my.yaml; it must not exist.")],
    as_json: options.Json = False,
) -> object:
    """Copy the file of a recipe, with its comments, to change it and use it as --recipe FILE.

    The copy inherits the values of `dfkd recipes show defaults`, as the recipe does; write a value into it to replace
    an inherited one.
    """
    from dfkd_cli.recipe.listing import copy_recipe

    copied = copy_recipe(name, to)
    if as_json:
        return copied
    print(f"written {to}; it inherits the values that `dfkd recipes show defaults` prints")
    print(f"next: change it, then run dfkd check {to}")
    return None


def _check_json(shown: ShownRecipe) -> None:
    """Raise UsageError for values that YAML has and JSON does not: not finite, or a section that contains itself."""
    try:
        json.dumps(shown.values, allow_nan=False)
    except ValueError as error:
        raise UsageError(
            f"{shown.name} has a value that JSON cannot represent, such as .nan; "
            f"run dfkd check {shown.name} to find it, or omit --json"
        ) from error


def _summary(entry: RecipeEntry) -> list[tuple[str, str]]:
    default = " (default)" if entry.name == DEFAULT_RECIPE else ""
    return [(entry.name, entry.summary + default), ("", f"use it when {entry.use_when}")]


def _details(entry: RecipeEntry) -> list[tuple[str, str]]:
    return [
        *_summary(entry),
        ("", f"needs: {', '.join(NEEDS[need] for need in entry.needs) or 'any teacher'}"),
        ("", f"cost: {entry.cost}"),
        ("", f"measured: {entry.measured}"),
    ]
