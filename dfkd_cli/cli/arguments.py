"""Arguments that several commands share: dataclasses whose fields typer reads as options."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dfkd_cli.cli import options
from dfkd_cli.cli.completion import complete_recipe, complete_student
from dfkd_cli.config.times import parse_budget
from dfkd_cli.errors import UsageError
from dfkd_cli.machine.world.launch import command, launched_place

if TYPE_CHECKING:
    from dfkd_cli.cli.progress import PlainProgress
    from dfkd_cli.loading import LoadOptions

DEFAULT_RECIPE = "ssd"
DEFAULT_STUDENT = "0.5"
TEACHER_HELP = "A checkpoint, a TorchScript or .pt2 file, a folder with config.json, timm:NAME or hf-hub:NAME."
LARGEST_SEED = 2**63 - 1  # of a torch generator
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one value of the recipe, e.g. train.steps=4000; repeatable."
    ),
]


def check_seed(seed: int) -> int:
    """Return the seed. Raises BadParameter when a torch generator cannot take it."""
    if not 0 <= seed <= LARGEST_SEED:
        raise typer.BadParameter(f"{seed} is not in the range from 0 to 2^63 - 1.")
    return seed


@dataclass(frozen=True, kw_only=True)
class OneArchitecture:
    """The architecture of a network. It is a base class, so that --help lists it before the other facts."""

    arch: options.Arch = None


@dataclass(frozen=True, kw_only=True)
class SharedFacts:
    """Facts that the file of a network may not contain, and that several networks can share: not the architecture."""

    prefix: options.Prefix = None
    num_classes: options.NumClasses = None
    input_size: options.InputSize = None
    mean: options.Mean = None
    std: options.Std = None
    crop_pct: options.CropPct = None
    interpolation: options.InterpolationOption = None
    crop_mode: options.CropModeOption = None
    output: options.Output = None
    trust_pickle: options.TrustPickle = False
    strict: options.Strict = False
    task: options.TaskOption = None

    def facts(self) -> dict[str, Any]:
        """Return the facts as keyword arguments of the Python interface. Raises UsageError for a wrong flag."""
        given = {field.name: getattr(self, field.name) for field in fields(SharedFacts)}
        return given | {
            "input_size": options.parse_size(self.input_size),
            "mean": options.parse_channels("--mean", self.mean),
            "std": options.parse_channels("--std", self.std),
        }

    def load_options(self) -> LoadOptions:
        """Return the options of the loader. Raises UsageError that names a wrong flag."""
        facts = self.facts()

        from dfkd_cli.loading import LoadOptions

        return LoadOptions(**facts)


@dataclass(frozen=True, kw_only=True)
class NetworkFacts(SharedFacts, OneArchitecture):
    """Facts about a network that its file may not contain."""

    def facts(self) -> dict[str, Any]:
        """Return the facts as keyword arguments of the Python interface. Raises UsageError for a wrong flag."""
        return super().facts() | {"arch": self.arch}


@dataclass(frozen=True, kw_only=True)
class NetworkArguments(NetworkFacts):
    """The device, and facts about a network that its file may not contain."""

    device: options.Device = "auto"


@dataclass(frozen=True, kw_only=True)
class ImageArguments:
    """How image files are read."""

    value_range: options.ValueRange = None
    exif_orientation: options.ExifOrientation = "apply"

    def reading(self) -> dict[str, Any]:
        """Return these two as keyword arguments of the Python interface. Raises UsageError for a wrong flag."""
        return {"value_range": options.parse_range(self.value_range), "exif_orientation": self.exif_orientation}


@dataclass(frozen=True, kw_only=True)
class LabelArguments:
    """How evaluation data are read."""

    classes: options.Classes = None
    class_order: options.ClassOrder = None
    skip_unreadable: options.SkipUnreadable = False

    def label_values(self) -> dict[str, Any]:
        """Return the keyword arguments of the Python interface."""
        return {"classes": self.classes, "class_order": self.class_order, "skip_unreadable": self.skip_unreadable}


@dataclass(frozen=True, kw_only=True)
class JobArguments(LabelArguments, ImageArguments, NetworkArguments):
    """The arguments of `compress`, and of `plan` for the forecast of the same run."""

    teacher: Annotated[
        str,
        typer.Argument(
            metavar="TEACHER",
            help=TEACHER_HELP,
        ),
    ]
    student: Annotated[
        str,
        typer.Option(
            metavar="SHARE|NAME",
            help="Share of the teacher's parameters that the student keeps, e.g. 0.5, 1/4 or 25%, "
            "or an architecture (see dfkd models).",
            autocompletion=complete_student,
        ),
    ] = DEFAULT_STUDENT
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", help="A recipe (see dfkd recipes) or a YAML file.", autocompletion=complete_recipe
        ),
    ] = DEFAULT_RECIPE
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Time for the whole run, e.g. 90s, 30m or 2h. Default: the steps of the recipe."
        ),
    ] = None
    overrides: Overrides = None
    eval_data: Annotated[
        str | None,
        typer.Option("--eval", metavar="DIR", help="Labelled images for the evaluation; nothing is trained on them."),
    ] = None
    ignore_index: options.IgnoreIndex = None
    class_names: options.ClassNames = None
    pool: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Unlabelled images to train on, for the recipe unlabeled."),
    ] = None
    seed: Annotated[
        int, typer.Option(metavar="N", callback=check_seed, help="Seed of all random choices, at least 0.")
    ] = 0
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 if it is faster on this machine.")
    ] = "auto"
    progress: Annotated[
        Literal["auto", "bar", "text", "none"],
        typer.Option(help="auto: a bar on a terminal, lines of text otherwise.", rich_help_panel=options.MESSAGES),
    ] = "auto"
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=options.MESSAGES)
    ] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every term of the losses.", rich_help_panel=options.MESSAGES)
    ] = False
    as_json: options.Json = False

    def job_values(self) -> dict[str, Any]:
        """Return the arguments that `dfkd_cli.compress` and `make_job` share. Raises UsageError for a wrong flag."""
        return {
            "teacher": self.teacher,
            "student": self.student,
            "recipe": self.recipe,
            "budget": None if self.budget is None else parse_budget(self.budget),
            "settings": self.overrides or (),
            "eval_data": self.eval_data,
            "pool": self.pool,
            "seed": self.seed,
            "device": self.device,
            "precision": self.precision,
            "command": command_line(),
        }

    def mask_values(self) -> dict[str, Any]:
        """Return the keyword arguments of `dfkd_cli.compress` that are about masks."""
        return {"ignore_index": self.ignore_index or (), "class_names": self.class_names}

    def prepare_process(self) -> None:
        """Set memory and arithmetic of the process of a command that trains. Raises UsageError for a wrong device."""
        from dfkd_cli.machine.device import resolve_device
        from dfkd_cli.machine.process import prepare_process

        prepare_process(resolve_device(self.device))

    def make_progress(self) -> PlainProgress:
        """Return the context manager that shows the run. Raises UsageError for --quiet with --verbose."""
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose contradict each other; give one of them")

        from dfkd_cli.cli.progress import make_progress

        quiet = self.quiet or launched_place().rank > 0  # only one of several processes prints
        return make_progress("none" if quiet else self.progress, notes=not quiet, verbose=self.verbose)


def command_line() -> str:
    """Return the shell command that repeats this one, with the environment variables that set its options."""
    options_set = sorted(name for name, value in os.environ.items() if name.startswith("DFKD_COMPRESS_") and value)
    words = [f"{name}={shlex.quote(os.environ[name])}" for name in options_set]
    return " ".join([*words, command(sys.argv[1:])])
