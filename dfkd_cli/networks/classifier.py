"""A classifier of images or of pixels: images in [0, 1] in, logits out, with the normalisation inside."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dfkd_cli.networks import Network, NormStatistics, Outputs
from dfkd_cli.networks.returned import Returned, to_logits
from dfkd_cli.networks.tasks import TASKS, Task, TaskName

Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
CropMode = Literal["center", "squash", "border"]


@dataclass(frozen=True)
class Preprocessing:
    """How image files of any size become images of the input size, in the words of timm's configurations."""

    crop_pct: float = 1.0  # in (0, 1]: the input size divided by that of the scaled image, whose centre is cropped
    interpolation: Interpolation = "bilinear"
    crop_mode: CropMode = "center"  # center: scaled to cover; squash: to both sides; border: to fit, and padded

    def __str__(self) -> str:
        return f"crop_pct {self.crop_pct:.4g}, {self.interpolation}, {self.crop_mode}"


@dataclass(frozen=True)
class InputSpec:
    """Input size, normalisation, preprocessing and classes of a network."""

    size: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    num_classes: int
    assumed: tuple[str, ...] = ()  # names of the values above that no flag and no file states
    task: TaskName = "classification"
    class_names: tuple[str, ...] = ()  # by class number; empty when nothing states them
    preprocessing: Preprocessing = Preprocessing()

    def same_images(self, other: "InputSpec") -> bool:
        """Return whether every image file becomes the same image for both networks."""
        fill = self.mean == other.mean or self.preprocessing.crop_mode != "border"
        return self.size == other.size and self.preprocessing == other.preprocessing and fill


@dataclass(frozen=True)
class Origin:
    """Where a classifier was loaded from, for logs and reports."""

    source: str  # as the user typed it
    kind: str  # "timm", "hub folder", "state dict", "TorchScript", "exported program", "dfkd student", ...
    arch: str | None  # name for timm.create_model, when there is one
    sha256: str | None  # of the weights file; None when the weights did not come from one file
    found: dict[str, str] = field(default_factory=dict)  # value -> its source, for example {"mean": "--mean"}
    notes: tuple[str, ...] = ()  # remarks for the user, one sentence each
    arguments: dict[str, Any] = field(default_factory=dict)  # of timm.create_model, which the weights do not show


class Classifier(nn.Module):
    """A network with its normalisation. All images in this project are floats in [0, 1], [B, C, H, W].

    Its logits are [B, K], or for segmentation [B, K, H, W] in the size of the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, spec: InputSpec, origin: Origin, returned: Returned = "logits"):
        """`returned` is the form of the network's own outputs; the classifier converts them to logits."""
        super().__init__()
        self.returned: Returned = returned
        self.network = network
        self.spec = spec
        self.origin = origin
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

    @property
    def norm_statistics(self) -> tuple[NormStatistics, ...]:
        """Running statistics of the BatchNorm layers, in the order of their calls."""
        return self.network.norm_statistics

    @property
    def task(self) -> Task:
        """What the logits mean."""
        return TASKS[self.spec.task]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images [B, C, H, W] in [0, 1]."""
        with self._precision(images):
            returned = self.network((images - self.mean) / self.std)
        return self._logits(returned, images)

    def observe(self, images: Tensor) -> Outputs:
        """Return logits, BatchNorm inputs, embedding and stage features of images [B, C, H, W] in [0, 1]."""
        with self._precision(images):
            outputs = self.network.observe((images - self.mean) / self.std)
        return outputs._replace(logits=self._logits(outputs.logits, images))

    def _precision(self, images: Tensor) -> AbstractContextManager[object]:
        """Return a context without autocast for a sigmoid, whose inputs half precision does not tell: 1 is above 6."""
        squashed = self.returned in ("sigmoid", "probability")
        return torch.autocast(images.device.type, enabled=False) if squashed else nullcontext()

    def _logits(self, returned: Tensor, images: Tensor) -> Tensor:
        return self.task.at_size(to_logits(returned, self.returned), images)

    def parameter_count(self) -> int:
        """Return the number of parameter values, without running statistics."""
        return sum(parameter.numel() for parameter in self.parameters())
