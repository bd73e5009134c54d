"""Behaviour of all commands: environment variables, one JSON document on stdout, one line per error, exit codes."""

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
from dfkd_cli.machine.world.launch import launched_place

# The base class of typer's usage errors: click's or, in newer versions, typer's copy of it.
ParsingError: Any = typer.BadParameter.__base__

MAY_BE_EMPTY = ("prefix", "teacher_prefix")  # the network at the top of a checkpoint


class PlainFlags:
    """A command whose help shows no value after a flag; some versions of typer write <bool> there."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments, --help included."""
        params = super().get_params(ctx)  # pyright: ignore[reportAttributeAccessIssue]
        for option in params:
            if getattr(option, "is_flag", False):
                option.metavar = " "
        return params


class Environment(PlainFlags):
    """A command whose options are environment variables too: DFKD_COMMAND_OPTION."""

    params: list[Any]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the variables, then parse; a flag on the command line takes precedence over its variable.

        Raises UsageError for an empty value, which as a path would be the working directory.
        """
        for option in self.params:
            flags = [flag for flag in option.opts if flag.startswith("--") and flag != "--help"]
            if flags:
                option.envvar = variable(*_command_words(ctx), flags[0].removeprefix("--"))
                option.show_envvar = False  # the help states the rule once
        rest = super().parse_args(ctx, args)  # pyright: ignore[reportAttributeAccessIssue]
        for option in self.params:
            if ctx.params.get(option.name) == "" and option.name not in MAY_BE_EMPTY:
                name = option.opts[0] if option.opts[0].startswith("-") else option.make_metavar(ctx)
                raise UsageError(f"{name} is empty; give a value (is a shell variable unset?)")
        return rest


class Command(Environment, TyperCommand):
    """A command of dfkd."""


class CommandGroup(Environment, TyperGroup):
    """A command of dfkd with subcommands."""


class Application(PlainFlags, TyperGroup):
    """The `dfkd` command: prints what a command returns as JSON, and what it raises as one line with an exit code.

    With --json stdout holds one document only, also after a failure. A bug keeps its traceback.
    """

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **settings: Any) -> Any:
        """Run the process. Raises SystemExit with the documented code."""
        arguments = list(sys.argv[1:] if args is None else args)
        stdout, as_json = sys.stdout, _wants_json(arguments)
        settings["standalone_mode"] = False  # results and errors then return to this method
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            try:
                result = super().main(arguments, prog_name, **settings)
                document, code = (None, result) if isinstance(result, int) else (result, 0)
                text = _text(document) if as_json else ""
            except Exception as error:  # of any kind: with --json a document is printed
                failure = _failure(error)
                if failure is None and not as_json:
                    raise
                document, code = _report(failure or _bug(error))
                text = _text(document) if as_json else ""
        sys.exit(_hand_over(text, stdout, code))

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises InterruptedRunError, because typer prints nothing for an interrupt."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise InterruptedRunError("interrupted") from interrupt


def variable(*words: str) -> str:
    """Return the environment variable of an option: DFKD_EVALUATE_BATCH_SIZE for `evaluate`, `batch-size`."""
    return "_".join(["DFKD", *words]).replace("-", "_").upper()


def _command_words(ctx: Any) -> list[str]:
    return [*_command_words(ctx.parent), ctx.info_name] if ctx.parent else []


def _wants_json(arguments: list[str]) -> bool:
    """Return whether stdout is for a document; looked up before the arguments are parsed, because that can fail."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    values = (os.environ.get(variable(*words[:count], "json"), "") for count in (1, 2))
    return "--json" in arguments or any(text.strip().lower() in ("1", "true", "t", "yes", "y", "on") for text in values)


def _failure(error: Exception) -> DfkdError | None:
    """Return the error as a DfkdError, None when it is a bug."""
    if isinstance(error, DfkdError):
        return error
    if isinstance(error, ParsingError):
        return UsageError(_usage_message(error))
    if is_out_of_memory(error):
        reason = str(error).splitlines()[0] if str(error) else "no memory left"
        return OutOfMemoryError(f"out of memory: {reason}; use a smaller batch size or a smaller network")
    return _system_failure(error) if isinstance(error, OSError) else None


def _system_failure(error: OSError) -> DfkdError | None:
    """Return the error of a full disk or an unusable path, such as a name too long; None for other errors."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DfkdError(f"{error.filename or 'cannot write'}: {error.strerror}")
    # Errors of the internet connection have an address as the file name, but no text of the system.
    return UsageError(f"{error.filename}: {error.strerror}") if error.filename and error.strerror else None


def _bug(error: Exception) -> DfkdError:
    traceback.print_exception(error)
    return DfkdError(f"a bug in dfkd: {type(error).__name__}: {error}")


def _report(failure: DfkdError) -> tuple[dict[str, Any], int]:
    """Print the failure; return its document and its exit code."""
    shown = launched_place().rank == 0 if failure.shown is None else failure.shown
    for line in failure.lines() if shown else ():
        print(f"error: {line}", file=sys.stderr)
    facts = {} if failure.facts is None else _plain(failure.facts)
    return facts | {"error": {"message": str(failure), "exit_code": failure.exit_code}}, failure.exit_code


def _usage_message(error: Any) -> str:
    """Return typer's message as one line, with the nearest option and the command's help."""
    text = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    if getattr(error, "possibilities", None):
        text = f"{error.message}; did you mean {error.possibilities[0]}?"
    where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
    return text[:1].lower() + text[1:] + where


def _text(document: Any) -> str:
    return "" if document is None else json.dumps(_plain(document), allow_nan=False) + "\n"


def _hand_over(text: str, stdout: TextIO, code: int) -> int:
    """Print the text and flush stdout. Return the exit code, which is not 0 when that fails."""
    try:
        print(text, end="", file=stdout, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())  # Python flushes again at its end
        if code or error.errno == errno.EPIPE:  # the reader of the pipe has closed it
            return code or 1
        return _report(DfkdError(f"cannot write: {error.strerror}"))[1]
    return code


def _plain(document: Any) -> dict[str, Any]:
    return asdict(document) if is_dataclass(document) else document  # pyright: ignore[reportArgumentType]
