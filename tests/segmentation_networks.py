"""Tiny segmentation networks, and masks for their images."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dfkd_cli.networks.classifier import Classifier, InputSpec, Origin
from dfkd_cli.networks.eager import EagerNetwork

SIZE, CLASSES = (3, 16, 24), 4
LOOK = {"mean": (0.4,), "std": (0.3,)}


class TinyFCN(nn.Module):
    """A fully convolutional network of stride 2: images -> logits of half the size."""

    def __init__(self, width: int = 8, outputs: int = CLASSES):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.middle = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        return self.head(torch.relu(self.second_norm(self.middle(x))))


class InDict(nn.Module):
    """A network whose result is a dict, as torchvision's segmentation networks have it."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.body(x)
        return {"aux": -logits, "out": logits}


def make_fcn(seed: int = 0, width: int = 8, outputs: int = CLASSES) -> TinyFCN:
    """Return the network in evaluation mode, with BatchNorm statistics other than the initial ones."""
    torch.manual_seed(seed)
    module = TinyFCN(width, outputs)
    for layer in (module.norm, module.second_norm):
        nn.init.normal_(layer.get_buffer("running_mean"), std=0.3)
        nn.init.uniform_(layer.get_buffer("running_var"), 0.5, 1.5)
    return module.eval()


def segmenter(seed: int = 0, width: int = 8) -> Classifier:
    """Return a tiny segmentation network with its normalisation."""
    spec = InputSpec(SIZE, mean=(0.4,) * 3, std=(0.3,) * 3, num_classes=CLASSES, task="segmentation")
    network = EagerNetwork(make_fcn(seed, width), input_size=SIZE)
    return Classifier(network, spec, Origin("test", "test", None, None)).eval().requires_grad_(False)


def save_scenes(
    folder: Path, count: int, size: tuple[int, int], values: tuple[int, ...] = tuple(range(CLASSES))
) -> Path:
    """Write random images with masks of these values, as PNG files of height and width `size`; return the folder."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / "images" / f"{number}.png")
        mask = np.array(values, np.uint8)[rng.integers(0, len(values), size)]
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder
