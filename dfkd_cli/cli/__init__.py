"""The command line: parses, calls one plain function, prints. Nothing here imports torch before a command runs."""

import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from dfkd_cli import __version__
from dfkd_cli.cli.benchmark import benchmark
from dfkd_cli.cli.compress import compress
from dfkd_cli.cli.evaluate import evaluate
from dfkd_cli.cli.export import export
from dfkd_cli.errors import DfkdError, OutOfMemoryError

# A Markdown list: one code per line in `dfkd --help`.
EXIT_CODES = """Exit codes:

- 0: done
- 1: the run failed
- 2: wrong usage
- 3: the teacher, or another network, cannot be read or is unsafe to open
- 4: the recipe does not fit the teacher
- 5: a quality gate was missed
- 6: out of memory
- 130: interrupted
"""


class ErrorReportingGroup(TyperGroup):
    """Makes a user's mistake one line on stderr and an exit code; a bug keeps its traceback."""

    def invoke(self, ctx: typer.Context) -> object:
        """Run the command; raises typer.Exit with the documented code after an error the user can act on."""
        try:
            return super().invoke(ctx)
        except DfkdError as error:
            code = _complain(str(error), error.exit_code)
        except KeyboardInterrupt:
            code = _complain("interrupted", 130)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else "no memory left"
            code = _complain(
                f"out of memory: {reason}; use smaller batches or a smaller network", OutOfMemoryError.exit_code
            )
        raise typer.Exit(code)


app = typer.Typer(
    cls=ErrorReportingGroup,
    help="Compress a trained vision classifier into a smaller one without its training data.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    suggest_commands=True,
)
app.command()(compress)
app.command()(evaluate)
app.command()(export)
app.command()(benchmark)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dfkd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The `dfkd` command."""
    app()


def _complain(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _is_out_of_memory(error: BaseException) -> bool:
    # By name, because importing torch only to compare classes would cost more than most failing commands. The CPU
    # allocator has no class of its own.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"OutOfMemoryError", "MemoryError"}) or "can't allocate memory" in str(error)
