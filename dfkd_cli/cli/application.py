"""What all commands share: environment variables, one JSON document on stdout, and errors as one line and one code."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, is_dataclass
from typing import Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from dfkd_cli.errors import DfkdError, InterruptedRunError, OutOfMemoryError, UsageError, is_out_of_memory

# Typer's own kind of wrong usage: click's class or, in newer versions, typer's copy of it.
ParsingError: Any = typer.BadParameter.__base__


class Environment:
    """Gives every option of a command an environment variable: DFKD_COMMAND_OPTION."""

    params: list[Any]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Names the variables before anything is read; a flag on the command line wins over its variable."""
        for option in self.params:
            flags = [flag for flag in option.opts if flag.startswith("--") and flag != "--help"]
            if flags:
                option.envvar = variable(*_command_words(ctx), flags[0].removeprefix("--"))
                option.show_envvar = False  # one rule in the help is easier to read than a name at every option
            if getattr(option, "is_flag", False):
                option.metavar = " "  # some versions of typer write <bool>, as if a value had to follow
        return super().parse_args(ctx, args)  # pyright: ignore[reportAttributeAccessIssue]


class Command(Environment, TyperCommand):
    """A command of dfkd."""


class CommandGroup(Environment, TyperGroup):
    """A command of dfkd with commands of its own."""


class Application(TyperGroup):
    """Runs a command. What it returns is its JSON document; what it raises, one line on stderr and an exit code.

    With --json only the document reaches stdout, and a failure is a document too. A bug keeps its traceback.
    """

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **settings: Any) -> Any:
        """The whole process; raises SystemExit with the documented code."""
        arguments = list(sys.argv[1:] if args is None else args)
        stdout, as_json = sys.stdout, _wants_json(arguments)
        settings["standalone_mode"] = False  # so that results and errors come back here
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            try:
                result = super().main(arguments, prog_name, **settings)
                document, code = (None, result) if isinstance(result, int) else (result, 0)
                text = _text(document) if as_json else ""
            except Exception as error:  # whatever it is, a program that asked for JSON gets JSON
                failure = _failure(error)
                if failure is None and not as_json:
                    raise
                document, code = _report(failure or _bug(error))
                text = _text(document) if as_json else ""
        sys.exit(_hand_over(text, stdout, code))

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; typer itself would end an interrupted one without a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise InterruptedRunError("interrupted") from interrupt


def variable(*words: str) -> str:
    """The environment variable of an option: of `compress` and `batch-size`, DFKD_COMPRESS_BATCH_SIZE."""
    return "_".join(["DFKD", *words]).replace("-", "_").upper()


def _command_words(ctx: Any) -> list[str]:
    return [*_command_words(ctx.parent), ctx.info_name] if ctx.parent else []


def _wants_json(arguments: list[str]) -> bool:
    """Whether stdout is for a program. Needed before the arguments are read, since reading them can fail."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    told = (os.environ.get(variable(*words[:count], "json"), "") for count in (1, 2))
    return "--json" in arguments or any(text.strip().lower() in ("1", "true", "t", "yes", "y", "on") for text in told)


def _failure(error: Exception) -> DfkdError | None:
    """The error as one of ours; None when it is a bug."""
    if isinstance(error, DfkdError):
        return error
    if isinstance(error, ParsingError):
        return UsageError(_usage_message(error))
    if is_out_of_memory(error):
        reason = str(error).splitlines()[0] if str(error) else "no memory left"
        return OutOfMemoryError(f"out of memory: {reason}; use smaller batches or a smaller network")
    return _system_failure(error) if isinstance(error, OSError) else None


def _system_failure(error: OSError) -> DfkdError | None:
    """A full disk, or a path that cannot be used, such as a name too long; None for errors of another kind."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DfkdError(f"{error.filename or 'cannot write'}: {error.strerror}")
    # Those of the network, which are OSErrors too, have an address there, but no text of the system's.
    return UsageError(f"{error.filename}: {error.strerror}") if error.filename and error.strerror else None


def _bug(error: Exception) -> DfkdError:
    traceback.print_exception(error)
    return DfkdError(f"a bug in dfkd: {type(error).__name__}: {error}")


def _report(failure: DfkdError) -> tuple[dict[str, Any], int]:
    """Prints the failure; its document and its exit code."""
    for line in failure.lines():
        print(f"error: {line}", file=sys.stderr)
    facts = {} if failure.facts is None else _plain(failure.facts)
    return facts | {"error": {"message": str(failure), "exit_code": failure.exit_code}}, failure.exit_code


def _usage_message(error: Any) -> str:
    """Typer's message as one line, with the nearest option and where to read on."""
    text = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    if getattr(error, "possibilities", None):
        text = f"{error.message}; did you mean {error.possibilities[0]}?"
    where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
    return text[:1].lower() + text[1:] + where


def _text(document: Any) -> str:
    return "" if document is None else json.dumps(_plain(document), allow_nan=False) + "\n"


def _hand_over(text: str, stdout: TextIO, code: int) -> int:
    """Prints the text and what is still unprinted; the exit code, which is no longer 0 when that fails."""
    try:
        print(text, end="", file=stdout, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())  # Python tries once more when it ends
        if code or error.errno == errno.EPIPE:  # who closes a pipe has read enough
            return code or 1
        return _report(DfkdError(f"cannot write: {error.strerror}"))[1]
    return code


def _plain(document: Any) -> dict[str, Any]:
    return asdict(document) if is_dataclass(document) else document  # pyright: ignore[reportArgumentType]
