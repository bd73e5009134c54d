"""Images for comparing two forms of a network without real images."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.data.sample_grid import read_grid
from dfkd_cli.loading.weights_file import weights_file
from dfkd_cli.networks.classifier import InputSpec

_COARSE = 4  # values per side of the low-resolution noise in `shaped_noise`
_FINE = 0.3  # weight of the per-pixel noise in it


class Probe(NamedTuple):
    """Images [N, C, H, W] in [0, 1], with a name for the report of a comparison."""

    images: Tensor
    name: str


def random_probe(spec: InputSpec, count: int) -> Probe:
    """Return uniform noise, the same at every call."""
    rng = torch.Generator().manual_seed(0)
    return Probe(torch.rand(count, *spec.size, generator=rng), "uniform noise")


def synthetic_probe(source: str, spec: InputSpec, count: int) -> Probe:
    """Return the images in `samples.png` beside a student's weights, or shaped noise when there is no such file."""
    weights = weights_file(source)
    if weights is not None:
        images = _read_samples(weights.parent / "samples.png", spec)
        if images is not None:
            return Probe(images, "synthetic, from samples.png")
    return Probe(shaped_noise(spec, count), "smooth noise with the mean and std of its training images")


def shaped_noise(spec: InputSpec, count: int) -> Tensor:
    """Return smooth noise [N, C, H, W] in [0, 1] with mean and std of `spec`, the same at every call."""
    rng = torch.Generator().manual_seed(1)
    channels, height, width = spec.size
    blobs = torch.randn(count, channels, _COARSE, _COARSE, generator=rng)
    noise = F.interpolate(blobs, (height, width), mode="bilinear", align_corners=False)
    noise = noise + _FINE * torch.randn(count, *spec.size, generator=rng)
    mean, std = torch.tensor(spec.mean).view(-1, 1, 1), torch.tensor(spec.std).view(-1, 1, 1)
    return (mean + std * noise / noise.std()).clamp(0.0, 1.0)


def _read_samples(path: Path, spec: InputSpec) -> Tensor | None:
    try:
        return read_grid(path, spec.size)
    except (OSError, ValueError):  # no such file, or not an image grid of dfkd
        return None
