"""Tests of the images that exports are compared on: those of an image grid, and noise without one."""

import pytest
import torch

from dfkd_cli.data.sample_grid import grid_of, read_grid
from dfkd_cli.export.probes import random_probe, shaped_noise, synthetic_probe
from dfkd_cli.networks.classifier import InputSpec


@pytest.mark.parametrize("size", [(3, 32, 32), (1, 28, 20), (3, 64, 100)])
@pytest.mark.parametrize("count", [1, 7, 9])
def test_a_grid_returns_its_images_up_to_8_bits(tmp_path, size, count):
    images = torch.rand(count, *size)
    (tmp_path / "samples.png").write_bytes(grid_of(images, torch.arange(count)))
    read = read_grid(tmp_path / "samples.png", size)
    assert read.shape == images.shape
    assert (read - images).abs().max() <= 0.5 / 255 + 1e-6


def test_large_images_return_at_the_resolution_of_the_grid(tmp_path):
    ramp = torch.linspace(0, 1, 224).expand(3, 3, 224, 224)
    (tmp_path / "samples.png").write_bytes(grid_of(ramp, torch.arange(3)))
    read = read_grid(tmp_path / "samples.png", (3, 224, 224))
    assert read.shape == ramp.shape
    assert (read - ramp).abs().max() < 0.02


@pytest.mark.parametrize("size", [(3, 31, 32), (2, 32, 32), (4, 32, 32), (3, 224, 224)])
def test_a_grid_of_other_images_is_refused(tmp_path, size):
    (tmp_path / "samples.png").write_bytes(grid_of(torch.rand(7, 3, 32, 32), torch.arange(7)))
    with pytest.raises(ValueError, match=r"grid of images|does not show"):
        read_grid(tmp_path / "samples.png", size)


def test_shaped_noise_has_mean_and_std_of_the_training_images():
    spec = InputSpec((3, 32, 32), (0.5, 0.45, 0.4), (0.2, 0.15, 0.1), 10)
    images = shaped_noise(spec, 64)
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    assert torch.allclose(images.mean((0, 2, 3)), torch.tensor(spec.mean), atol=0.03)
    assert torch.allclose(images.std((0, 2, 3)), torch.tensor(spec.std), atol=0.03)
    neighbours = (images[..., 1:] - images[..., :-1]).std()
    assert neighbours < 0.7 * (images - images.roll(1, 0)).std(), "smooth, not independent per pixel"


def test_a_name_without_a_file_gets_the_same_noise_at_every_call():
    spec = InputSpec((1, 8, 8), (0.5,), (0.2,), 3)
    first, second = synthetic_probe("timm:resnet18", spec, 4), synthetic_probe("timm:resnet18", spec, 4)
    assert "smooth noise" in first.name
    assert torch.equal(first.images, second.images)
    assert torch.equal(random_probe(spec, 4).images, random_probe(spec, 4).images)
