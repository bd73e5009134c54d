"""Options that several commands share, and how their texts are parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dfkd_cli.errors import UsageError

PANEL = "Facts that the file of a network may not contain"
LABELS = "Evaluation data"
IMAGE_FILES = "How image files are read"
OUTPUT = "Output"
MASKS = "Masks, for segmentation networks"
MESSAGES = "Messages"

Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="NAME",
        help="Architecture of a state dict: a name of timm or dfkd, or torchvision/NAME.",
        rich_help_panel=PANEL,
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        metavar="NAME",
        help="Which of several networks in a checkpoint, e.g. teacher or ema_model.",
        rich_help_panel=PANEL,
    ),
]
NumClasses = Annotated[
    int | None, typer.Option("--num-classes", metavar="N", min=2, help="Number of classes.", rich_help_panel=PANEL)
]
InputSize = Annotated[
    str | None,
    typer.Option(
        "--input-size", metavar="CxHxW", help="Size of the input images, e.g. 3x32x32.", rich_help_panel=PANEL
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="M,...",
        help=r"Mean of each channel for images in \[0, 1], e.g. 0.485,0.456,0.406.",
        rich_help_panel=PANEL,
    ),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="S,...", help="Standard deviation of each channel.", rich_help_panel=PANEL),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="KEY|INDEX",
        help="Output with the logits, if there are several.",
        rich_help_panel=PANEL,
    ),
]
TaskOption = Annotated[
    Literal["classification", "segmentation"] | None,
    typer.Option(
        "--task",
        help="What the logits mean. Default: seen in their shape, one answer per image or per pixel.",
        rich_help_panel=PANEL,
    ),
]
IgnoreIndex = Annotated[
    list[int] | None,
    typer.Option(
        "--ignore-index",
        metavar="N",
        help="Value of pixels in masks that do not count, besides 255; repeatable.",
        rich_help_panel=MASKS,
    ),
]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        "--class-names", metavar="FILE", help="Text file with one name per class, in order.", rich_help_panel=MASKS
    ),
]
CropPct = Annotated[
    float | None,
    typer.Option(
        "--crop-pct",
        metavar="SHARE",
        help="Share of the scaled image that is cropped as the input, as in timm. Default: what the file states, or 1.",
        rich_help_panel=PANEL,
    ),
]
InterpolationOption = Annotated[
    Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"] | None,
    typer.Option(
        "--interpolation",
        help="Filter that scales image files. Default: what the file states, or bilinear.",
        rich_help_panel=PANEL,
    ),
]
CropModeOption = Annotated[
    Literal["center", "squash", "border"] | None,
    typer.Option(
        "--crop-mode",
        help="center: scale to cover the input, and crop; squash: scale both sides; border: scale to fit, and pad. "
        "Default: what the file states, or center.",
        rich_help_panel=PANEL,
    ),
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Open a pickled module. It can run any code: use this only for files of your own.",
        rich_help_panel=PANEL,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse to assume an input size, mean or std that neither the file nor an option gives.",
        rich_help_panel=PANEL,
    ),
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        "--value-range",
        metavar="BLACK:WHITE",
        help="Values of black and white in image files of 16 or 32 bits, e.g. 0:4095. Default: what each file shows.",
        rich_help_panel=IMAGE_FILES,
    ),
]
ExifOrientation = Annotated[
    Literal["apply", "ignore"],
    typer.Option(
        "--exif-orientation",
        help="apply: turn images upright by the EXIF orientation of their files; ignore: as torchvision and timm.",
        rich_help_panel=IMAGE_FILES,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Names of the network's classes by number, as one per line or JSON, to find the class folders by.",
        rich_help_panel=LABELS,
    ),
]
ClassOrder = Annotated[
    Literal["text", "natural"] | None,
    typer.Option(
        "--class-order",
        help="Order of the class folders where text (as torchvision sorts) and natural order (as timm sorts) differ.",
        rich_help_panel=LABELS,
    ),
]
SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable",
        help="Leave out image files that cannot be decoded; they are counted and listed.",
        rich_help_panel=LABELS,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout (see dfkd schema).")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:i]", help="Device for all computations.")]


def parse_size(text: str | None) -> tuple[int, int, int] | None:
    """Return channels, height and width of `3x32x32`. Raises UsageError for anything else."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--input-size {text}: write channels x height x width, e.g. 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width


def parse_range(text: str | None) -> tuple[float, float] | None:
    """Return the two numbers of `0:4095`. Raises UsageError for anything else."""
    if text is None:
        return None
    try:
        black, white = map(float, text.split(":"))
    except ValueError as error:
        raise UsageError(f"--value-range {text}: write the values of black and white, e.g. 0:4095") from error
    return black, white


def parse_channels(flag: str, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers of `0.485,0.456,0.406`. Raises UsageError that names `flag` for anything else."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{flag} {text}: write one number, or one per channel separated by commas") from error
