"""A network without training that reads the class from the grey level of an image, and such images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch import Tensor

import dfkd_cli.models  # noqa: F401 - adds lenet5_half to timm's registry

ARCH = "lenet5_half"
CLASSES = 12
SIZE = 16
FLAGS = ("--arch", ARCH, "--input-size", f"1x{SIZE}x{SIZE}", "--mean", "0", "--std", "1")
STEP = 20  # grey levels between two classes


def level(number: int) -> int:
    """Return the grey level of the images of a class."""
    return 10 + STEP * number


def grey_weights(classes: int = CLASSES) -> dict[str, Tensor]:
    """Return weights of `ARCH` that predict the class whose grey level is closest to that of the image."""
    module: Any = timm.create_model(ARCH, num_classes=classes, in_chans=1)
    weights = {name: torch.zeros_like(tensor) for name, tensor in module.state_dict().items()}
    for name in ("conv1", "conv2", "conv3"):
        weights[f"{name}.weight"][0, 0, 2, 2] = 1.0
    weights["fc1.weight"][0, 0] = 1.0
    levels = torch.tensor([level(number) / 255 for number in range(classes)])
    weights["fc2.weight"][:, 0] = 2 * levels
    weights["fc2.bias"] = -levels.square()
    return weights


def write_image(path: Path, number: int, size: int = SIZE) -> Path:
    """Write an image of the class `number` in the format of the suffix; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), level(number)).convert("RGB").save(path)
    return path


def write_classes(root: Path, names: Sequence[str | None], suffixes: Sequence[str] = (".png", ".png")) -> Path:
    """Write a folder per class, whose number is the place of its name; None for a class without a folder."""
    for number, name in enumerate(names):
        for index, suffix in enumerate(suffixes):
            if name is not None:
                write_image(root / name / f"{index}{suffix}", number)
    return root
