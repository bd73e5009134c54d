"""The command line: parses, calls one plain function, prints. Nothing here imports torch before a command runs."""

from typing import Annotated

import typer

from dfkd_cli import __version__
from dfkd_cli.cli.application import Application, Command
from dfkd_cli.cli.benchmark import benchmark
from dfkd_cli.cli.check import check
from dfkd_cli.cli.compress import compress
from dfkd_cli.cli.evaluate import evaluate
from dfkd_cli.cli.export import export
from dfkd_cli.cli.inspect import inspect
from dfkd_cli.cli.models import models
from dfkd_cli.cli.plan import plan
from dfkd_cli.cli.recipes import recipes
from dfkd_cli.cli.schema import schema

# Markdown lists: one item per line in `dfkd --help`.
EPILOG = """Start here:

- dfkd inspect TEACHER: what is in this file, and which recipes fit it
- dfkd recipes, dfkd models: what there is to choose from
- dfkd plan TEACHER --student NAME: how long it will take
- dfkd compress TEACHER --student NAME --out out/

Exit codes:

- 0: done
- 1: the run failed
- 2: wrong usage
- 3: the teacher, or another network, cannot be read or is unsafe to open
- 4: the recipe does not fit the teacher
- 5: a quality gate was missed
- 6: out of memory
- 130: interrupted

Every option is also an environment variable, DFKD_COMMAND_OPTION: DFKD_COMPRESS_RECIPE=ssd is
dfkd compress --recipe ssd.
"""

app = typer.Typer(
    cls=Application,
    help="Compress a trained vision classifier into a smaller one without its training data.",
    epilog=EPILOG,
    invoke_without_command=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    suggest_commands=True,
    context_settings={"help_option_names": ["--help", "-h"]},
)
CHOOSE, RUN, JUDGE = "Choose and look before", "Compress", "Judge and use the result"
app.command(cls=Command, rich_help_panel=CHOOSE)(inspect)
app.add_typer(recipes, name="recipes", rich_help_panel=CHOOSE)
app.command(cls=Command, rich_help_panel=CHOOSE)(models)
app.command(cls=Command, rich_help_panel=CHOOSE)(check)
app.command(cls=Command, rich_help_panel=CHOOSE)(plan)
app.command(cls=Command, rich_help_panel=RUN)(compress)
app.command(cls=Command, rich_help_panel=JUDGE)(evaluate)
app.command(cls=Command, rich_help_panel=JUDGE)(export)
app.command(cls=Command, rich_help_panel=JUDGE)(benchmark)
app.command(cls=Command, rich_help_panel=JUDGE)(schema)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dfkd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), end="")
        raise typer.Exit(2)


def main() -> None:
    """The `dfkd` command."""
    app()
