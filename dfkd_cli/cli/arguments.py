"""Arguments that several commands share, as dataclasses: declared once, checked by typer, handed over as one object."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.completion import complete_recipe, complete_student
from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.cli.progress import PlainProgress
    from dfkd_cli.compression.job import Job
    from dfkd_cli.loading import LoadOptions

WATCH = "What is shown meanwhile"
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's value, e.g. --set train.lr=0.05; repeatable."),
]
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def taking(kind: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes `command(arguments: kind, **own)` a function that takes every field of `kind` by its own name.

    Typer reads a command's options off its signature; this is the signature with the fields in front.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(kind, include_extras=True)
        shared = [_parameter(field, hints[field.name]) for field in fields(kind)]
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        ]

        # Required ones first, as people read them.
        parameters = sorted([*shared, *own], key=lambda parameter: parameter.default is not inspect.Parameter.empty)

        def run(**values: Any) -> Any:
            arguments = kind(**{parameter.name: values.pop(parameter.name) for parameter in shared})
            return command(arguments, **values)

        run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _parameter(field: Field, annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


@dataclass(frozen=True, kw_only=True)
class NetworkArguments:
    """Where to compute, and what the file of a network does not say of itself."""

    device: options.Device = "auto"
    arch: options.Arch = None
    num_classes: options.NumClasses = None
    input_size: options.InputSize = None
    mean: options.Mean = None
    std: options.Std = None
    output: options.Output = None
    trust_pickle: options.TrustPickle = False

    def load_options(self) -> LoadOptions:
        """The flags as the loader takes them. Raises UsageError naming the flag that cannot be understood."""
        return options.load_options(
            self.arch, self.num_classes, self.input_size, self.mean, self.std, self.output, self.trust_pickle
        )


@dataclass(frozen=True, kw_only=True)
class JobArguments(NetworkArguments):
    """What `compress` is told about its run, and `plan` about the run it foresees."""

    teacher: Annotated[
        str,
        typer.Argument(
            metavar="TEACHER",
            help="A checkpoint, TorchScript or .pt2 file, a folder with config.json, or timm:NAME, hf-hub:NAME.",
        ),
    ]
    student: Annotated[
        str,
        typer.Option(help="Architecture to train: any name that `dfkd models` lists.", autocompletion=complete_student),
    ]
    recipe: Annotated[
        str,
        typer.Option(help="Name of a recipe (`dfkd recipes`), or a YAML file.", autocompletion=complete_recipe),
    ] = "ssd"
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for the whole run, e.g. 90s, 30m, 2h. Default: the recipe's steps."),
    ] = None
    overrides: Overrides = None
    eval_data: Annotated[
        str | None,
        typer.Option("--eval", metavar="DIR", help="Labelled images to measure the result on; used for nothing else."),
    ] = None
    pool: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Unlabelled pictures to learn from, for recipe unlabeled."),
    ] = None
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of every random choice.")] = 0
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 where this machine is faster with it.")
    ] = "auto"
    progress: Annotated[
        Literal["auto", "bar", "text", "none"],
        typer.Option(help="auto: a bar on a terminal, a line now and then in a log.", rich_help_panel=WATCH),
    ] = "auto"
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=WATCH)] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every term of the losses.", rich_help_panel=WATCH)
    ] = False
    as_json: options.Json = False

    def job(self, out: Path) -> Job:
        """The job as the run takes it. Raises UsageError for a flag that cannot be understood."""
        changes = list(self.overrides or [])
        if self.budget is not None:
            changes.append(f"train.budget={parse_budget(self.budget)}")
        load = self.load_options()

        from dfkd_cli.compression.job import Job

        return Job(
            teacher=self.teacher,
            load=load,
            student=self.student,
            recipe=self.recipe,
            overrides=tuple(changes),
            out=out,
            overwrite=False,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            eval_data=self.eval_data,
            pool=self.pool,
            command=command_line(),
        )

    def make_progress(self) -> PlainProgress:
        """What shows the run, a context manager."""
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose exclude each other")

        from dfkd_cli.cli.progress import make_progress

        return make_progress("none" if self.quiet else self.progress, notes=not self.quiet, verbose=self.verbose)


def command_line() -> str:
    """What to type in a shell to get the same command again, with the environment variables that are its options."""
    options_set = sorted(name for name, value in os.environ.items() if name.startswith("DFKD_COMPRESS_") and value)
    words = [f"{name}={shlex.quote(os.environ[name])}" for name in options_set]
    return " ".join([*words, shlex.join(["dfkd", *sys.argv[1:]])])


def parse_budget(text: str) -> float:
    """Seconds of a time such as 90s, 30m or 1.5h. Raises UsageError for anything else."""
    seconds = parse_seconds(text)
    if seconds is None:
        raise UsageError(f"--budget {text}: write a time such as 90s, 30m or 2h")
    return seconds


def parse_seconds(text: str) -> float | None:
    """Seconds of a time such as 90s, 30m or 1.5h; None for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip().lower())
    if match is None or float(match[1]) == 0.0:
        return None
    return float(match[1]) * _SECONDS[match[2]]
