"""The command line: each command parses, calls one function and prints. Imports torch only inside commands."""

from typing import Annotated

import typer

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
from dfkd_cli.config.version import __version__

# A Markdown list prints one item per line in `dfkd --help`.
EPILOG = """Start here:

- dfkd inspect TEACHER: the facts about a network, and the recipes that fit
- dfkd recipes, dfkd models: the recipes, and architectures for the student
- dfkd plan TEACHER --student NAME: the time and memory of a compression
- dfkd compress TEACHER --student NAME --out out/: the compression

Exit codes:

- 0: success
- 1: the run failed
- 2: wrong usage
- 3: the file of a network cannot be read, or is unsafe to open
- 4: the recipe does not fit the teacher
- 5: a quality gate was missed
- 6: out of memory
- 130: interrupted

Each option is also an environment variable, DFKD_COMMAND_OPTION: DFKD_COMPRESS_RECIPE=ssd
has the effect of dfkd compress --recipe ssd.
"""

app = typer.Typer(
    cls=Application,
    help="Compress a trained image classifier or segmentation network without its training data.",
    epilog=EPILOG,
    invoke_without_command=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    suggest_commands=True,
    context_settings={"help_option_names": ["--help", "-h"]},
)
PREPARE, COMPRESS, USE = "Prepare", "Compress", "Evaluate and use the result"
app.command(cls=Command, rich_help_panel=PREPARE)(inspect)
app.add_typer(recipes, name="recipes", rich_help_panel=PREPARE)
app.command(cls=Command, rich_help_panel=PREPARE)(models)
app.command(cls=Command, rich_help_panel=PREPARE)(check)
app.command(cls=Command, rich_help_panel=PREPARE)(plan)
app.command(cls=Command, rich_help_panel=COMPRESS)(compress)
app.command(cls=Command, rich_help_panel=USE)(evaluate)
app.command(cls=Command, rich_help_panel=USE)(export)
app.command(cls=Command, rich_help_panel=USE)(benchmark)
app.command(cls=Command, rich_help_panel=USE)(schema)


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
    """Run the `dfkd` command."""
    app()
