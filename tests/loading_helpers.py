"""Helpers of the loading tests: a small network, functions that save it, and a check of the loaded classifier."""

import warnings
from typing import Any

import timm
import torch
from torch import nn

from dfkd_cli.loading import LoadOptions, load_classifier

ARCH = "lenet5_half"
MNIST = {"mean": (0.1307,), "std": (0.3081,)}
SIZE = (1, 32, 32)


def create(name: str, **options: Any) -> Any:
    """Return a timm network, typed so that the type checker accepts its layers."""
    return timm.create_model(name, **options)


def script(module, path, size=SIZE, extra=None, batch=16):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, torch.rand(batch, *size)), path, _extra_files=extra)
    return path


def export(module, path, size=SIZE, extra=None, dynamic=True):
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (torch.rand(16, *size),), dynamic_shapes=shapes)
        torch.export.save(program, path, extra_files=extra)
    return path


def load(path, **options):
    return load_classifier(str(path), LoadOptions(**options))


def assert_same(classifier, module):
    """Check that the classifier is frozen and computes the same as the module with normalised images."""
    images = torch.rand(3, *classifier.spec.size)
    with torch.no_grad():
        expected = module((images - classifier.mean) / classifier.std)
        assert torch.allclose(classifier(images), expected, atol=1e-5)
    assert not classifier.training
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


class FixedBatch(nn.Module):
    """Classifies batches of exactly eight images of 1x16x16 into six classes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(256, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.reshape(8, 256))
