"""The options that several commands share: how to read a network that does not say everything about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from dfkd_cli.loading import LoadOptions

PANEL = "What a network's file may not say"

Arch = Annotated[
    str | None,
    typer.Option("--arch", help="Architecture of a state dict, any name timm knows.", rich_help_panel=PANEL),
]
NumClasses = Annotated[
    int | None, typer.Option("--num-classes", min=2, help="Number of classes.", rich_help_panel=PANEL)
]
InputSize = Annotated[
    str | None,
    typer.Option("--input-size", metavar="CxHxW", help="Size of its images, e.g. 3x32x32.", rich_help_panel=PANEL),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="M,...",
        help="Mean per channel of its images in [0, 1], e.g. 0.485,0.456,0.406.",
        rich_help_panel=PANEL,
    ),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="S,...", help="Standard deviation per channel, likewise.", rich_help_panel=PANEL),
]
Output = Annotated[
    str | None,
    typer.Option("--output", help="Which of several outputs the logits are, by key or index.", rich_help_panel=PANEL),
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Open a pickled module, which can run any code: only for files you made yourself.",
        rich_help_panel=PANEL,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout (see `dfkd schema`).")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:i]", help="Where to compute.")]


def load_options(
    arch: str | None,
    num_classes: int | None,
    input_size: str | None,
    mean: str | None,
    std: str | None,
    output: str | None,
    trust_pickle: bool,
) -> LoadOptions:
    """The flags as the loader takes them. Raises UsageError naming the flag that cannot be understood."""
    from dfkd_cli.loading import LoadOptions

    return LoadOptions(
        arch=arch,
        num_classes=num_classes,
        input_size=parse_size(input_size),
        mean=parse_channels("--mean", mean),
        std=parse_channels("--std", std),
        output=output,
        trust_pickle=trust_pickle,
    )


def parse_size(text: str | None) -> tuple[int, int, int] | None:
    """Channels, height and width of `3x32x32`. Raises UsageError for anything else."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--input-size {text}: write channels x height x width, e.g. 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width


def parse_channels(flag: str, text: str | None) -> tuple[float, ...] | None:
    """The numbers of `0.485,0.456,0.406`. Raises UsageError naming `flag` for anything else."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{flag} {text}: write one number, or one per channel with commas between") from error
