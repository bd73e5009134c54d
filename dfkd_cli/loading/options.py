"""Flags that describe a teacher file."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast, get_args

from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import CropMode, Interpolation
from dfkd_cli.networks.tasks import TaskName

FLAGS = {
    "num_classes": "--num-classes K",
    "input_size": "--input-size CxHxW",
    "mean": "--mean M1,M2,...",
    "std": "--std S1,S2,...",
}
PREPROCESSING = {"crop_pct": "--crop-pct", "interpolation": "--interpolation", "crop_mode": "--crop-mode"}
CHOICES = {"interpolation": get_args(Interpolation), "crop_mode": get_args(CropMode)}


class Facts(TypedDict, total=False):
    """The values of `LoadOptions` that a user can give, as keyword arguments of the Python interface."""

    arch: str | None
    prefix: str | None
    num_classes: int | None
    input_size: tuple[int, int, int] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    crop_pct: float | None
    interpolation: Interpolation | None
    crop_mode: CropMode | None
    output: str | None
    task: TaskName | None
    trust_pickle: bool
    strict: bool


@dataclass(frozen=True)
class LoadOptions:
    """Flags of the command line; None means not given. A flag has priority over the file's own description.

    Raises UsageError for values outside their range.
    """

    arch: str | None = None  # a name timm.create_model knows
    prefix: str | None = None  # name of one network in a checkpoint with several
    num_classes: int | None = None
    input_size: tuple[int, int, int] | None = None  # channels, height, width
    mean: tuple[float, ...] | None = None  # per channel, or one for all, of images in [0, 1]
    std: tuple[float, ...] | None = None
    crop_pct: float | None = None  # this and the next two: how image files become images of the input size
    interpolation: Interpolation | None = None
    crop_mode: CropMode | None = None
    output: str | None = None  # name or index of the logits among several outputs
    task: TaskName | None = None  # None: seen in the shape of the logits
    trust_pickle: bool = False  # open files that run code
    strict: bool = False  # refuse values that are assumed
    pretrained: bool = True  # for timm names: load weights; otherwise they are random

    def __post_init__(self) -> None:
        if self.num_classes is not None and self.num_classes < 2:
            raise UsageError(f"--num-classes is {self.num_classes}; a classifier has at least 2 classes")
        if self.input_size is not None and (len(self.input_size) != 3 or min(self.input_size) < 1):
            raise UsageError(f"--input-size is {self.input_size}; give three positive numbers such as 3x32x32")
        if self.mean is not None and not all(map(math.isfinite, self.mean)):
            raise UsageError(f"--mean is {listed(self.mean)}; give finite numbers")
        if self.std is not None and not all(math.isfinite(value) and value > 0 for value in self.std):
            raise UsageError(f"--std is {listed(self.std)}; give positive finite numbers")
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise UsageError(f"--crop-pct is {self.crop_pct:g}; give a number above 0 and up to 1")
        for name, known in CHOICES.items():
            if (value := getattr(self, name)) is not None and value not in known:
                raise UsageError(f"{PREPROCESSING[name]} is {value}; use one of {', '.join(known)}")
        if self.mean is not None and max(self.mean) > 1.0:
            divided = listed(round(value / 255, 4) for value in self.mean)
            raise UsageError(
                f"--mean is {listed(self.mean)}: images are in [0, 1] here; if these values are for images "
                f"from 0 to 255, divide mean and std by 255: --mean {divided}"
            )

    def preprocessing_only(self) -> "LoadOptions":
        """Return options without the facts that a file of dfkd states itself."""
        return LoadOptions(crop_pct=self.crop_pct, interpolation=self.interpolation, crop_mode=self.crop_mode)

    def as_words(self) -> tuple[str, ...]:
        """Return the command-line words that give these options."""
        words: list[str] = []
        for name, value in (
            ("arch", self.arch),
            ("prefix", self.prefix),
            ("num-classes", self.num_classes),
            ("input-size", self.input_size and "x".join(map(str, self.input_size))),
            ("mean", self.mean and listed(self.mean)),
            ("std", self.std and listed(self.std)),
            ("crop-pct", self.crop_pct and f"{self.crop_pct:.9g}"),
            ("interpolation", self.interpolation),
            ("crop-mode", self.crop_mode),
            ("output", self.output),
            ("task", self.task),
        ):
            words += [] if value is None else [f"--{name}", str(value)]
        words += ["--trust-pickle"] if self.trust_pickle else []
        return (*words, "--strict") if self.strict else tuple(words)


def load_options(facts: Facts) -> LoadOptions:
    """Return the options of these keyword arguments. Raises UsageError for values outside their range."""
    told = cast(dict[str, Any], facts)
    lists: dict[str, Any] = {
        name: tuple(told[name]) for name in ("input_size", "mean", "std") if told.get(name) is not None
    }
    return LoadOptions(**(told | lists))


def listed(values: Iterable[float]) -> str:
    """Return the numbers as a flag takes them."""
    return ",".join(f"{value:.9g}" for value in values)
