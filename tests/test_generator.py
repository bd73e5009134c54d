"""The generator fits every image size and keeps to [0, 1]."""

import pytest
import torch

from dfkd_cli.generator import Generator


@pytest.mark.parametrize("size", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 47), (2, 64, 64), (4, 224, 224)])
def test_images_have_the_asked_size_and_range(size):
    generator = Generator(size, num_classes=7, noise_size=16, width=16)
    images = generator(torch.randn(2, 16), torch.tensor([0, 6]))
    assert images.shape == (2, *size)
    assert images.min() >= 0
    assert images.max() <= 1


def test_noise_and_label_both_matter():
    torch.manual_seed(0)
    generator = Generator((1, 8, 8), num_classes=3, noise_size=16, width=16).eval()
    noise, labels = torch.randn(2, 16), torch.tensor([0, 0])
    images = generator(noise, labels)
    assert not torch.allclose(images[0], images[1])
    assert not torch.allclose(images, generator(noise, torch.tensor([1, 2])))


def test_every_weight_gets_a_gradient():
    generator = Generator((3, 16, 16), num_classes=3, noise_size=16, width=16)
    generator(torch.randn(6, 16), torch.arange(6) % 3).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in generator.parameters())
