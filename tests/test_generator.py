"""The generator makes images of every size in [0, 1]."""

from typing import get_args

import pytest
import torch
from torch import nn

from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.synthesis.class_modulation import ClassModulation, Conditioning
from dfkd_cli.synthesis.generator import Generator


def spec(size: tuple[int, int, int], classes: int = 3, mean: float = 0.5, std: float = 0.25) -> InputSpec:
    return InputSpec(size, (mean,) * size[0], (std,) * size[0], classes)


@pytest.mark.parametrize("size", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 47), (2, 64, 64), (4, 224, 224)])
def test_images_have_the_requested_size_and_range(size):
    generator = Generator(spec(size, classes=7), noise_size=16, width=16, conditional=True)
    images = generator(torch.randn(2, 16), torch.tensor([0, 6]))
    assert images.shape == (2, *size)
    assert images.min() >= 0
    assert images.max() <= 1


def conditional_generator(conditioning: Conditioning, size: tuple[int, int, int] = (1, 8, 8)) -> Generator:
    torch.manual_seed(0)
    generator = Generator(spec(size), noise_size=16, width=16, conditional=True, conditioning=conditioning)
    for layer in generator.modules():
        if isinstance(layer, ClassModulation):  # initially without effect
            nn.init.normal_(layer.gain.weight, std=0.5)
            nn.init.normal_(layer.shift.weight, std=0.5)
    return generator


@pytest.mark.parametrize("conditioning", get_args(Conditioning))
def test_noise_and_label_both_matter(conditioning):
    generator = conditional_generator(conditioning).eval()
    noise, labels = torch.randn(2, 16), torch.tensor([0, 0])
    images = generator(noise, labels)
    assert not torch.allclose(images[0], images[1])
    assert not torch.allclose(images, generator(noise, torch.tensor([1, 2])))


@pytest.mark.parametrize("conditioning", get_args(Conditioning))
def test_every_weight_gets_a_gradient(conditioning):
    generator = conditional_generator(conditioning, (3, 16, 16))
    generator(torch.randn(6, 16), torch.arange(6) % 3).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in generator.parameters())


def test_a_product_of_noise_and_label_is_constant_without_noise():
    generator = conditional_generator("product")
    silent = generator(torch.zeros(6, 16), torch.arange(6) % 3)
    torch.testing.assert_close(silent, silent[:1].expand_as(silent))


def test_a_class_modulation_starts_without_effect_and_then_is_its_formula():
    torch.manual_seed(0)
    layer, features, labels = ClassModulation(4, 3), torch.randn(5, 4, 2, 2), torch.tensor([0, 2, 1, 1, 0])
    assert torch.equal(layer(features, labels), features)
    nn.init.normal_(layer.gain.weight)
    nn.init.normal_(layer.shift.weight)
    expected = [
        image * (1 + layer.gain.weight[label].view(-1, 1, 1)) + layer.shift.weight[label].view(-1, 1, 1)
        for image, label in zip(features, labels, strict=True)
    ]
    torch.testing.assert_close(layer(features, labels), torch.stack(expected))


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), (0.485, 0.229), (0.3, 0.2)])
def test_images_start_with_the_mean_and_contrast_of_the_teachers_normalisation(mean, std):
    torch.manual_seed(0)
    generator = Generator(spec((3, 32, 32), mean=mean, std=std), noise_size=16, width=16, conditional=False)
    images = generator(torch.randn(64, 16))
    assert images.mean().item() == pytest.approx(mean, abs=0.05)
    assert images.std().item() == pytest.approx(std, rel=0.2)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.0, 255.0), (0.5, 0.5)])
def test_a_normalisation_without_statistics_of_images_is_accepted(mean, std):
    images = Generator(spec((3, 16, 16), mean=mean, std=std), 16, 16, conditional=False)(torch.randn(16, 16))
    assert images.isfinite().all()
    assert 0.03 < images.std() < 0.45
