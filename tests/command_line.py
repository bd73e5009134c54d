"""Helpers for tests of the command line: functions that run it, and a teacher that is compressed in a second."""

import subprocess
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from typer.testing import CliRunner, Result

from dfkd_cli.cli import app

INSTALLED = str(Path(sys.executable).parent / "dfkd")
LOOK = ("--input-size", "1x8x8", "--mean", "0.4", "--std", "0.3")
SMALL = (
    "train.steps=4",
    "train.batch_size=8",
    "train.round_every=2",
    "train.report_every=2",
    "options.buffer.size=16",
    "options.warmup.rounds=1",
    "options.generator.batch_size=8",
    "options.generator.width=16",
    "options.generator.noise_size=8",
)
TINY_RUN = tuple(part for value in SMALL for part in ("--set", value))


def dfkd(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)), prog_name="dfkd")


def installed(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a separate process."""
    return subprocess.run(
        [INSTALLED, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )


def save_teacher(path: Path, norm: bool = True) -> Path:
    """Save a network that timm does not have as TorchScript, for images that LOOK describes; return the path."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(network, torch.rand(2, 1, 8, 8)), path)
    return path
