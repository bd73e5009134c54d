"""Shared by the loading tests: one small network, ways to save it, and what a right load looks like."""

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
    """A timm network, without the type that hides its layers from the type checker."""
    return timm.create_model(name, **options)


def script(module, path, size=SIZE, extra=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, torch.rand(16, *size)), path, _extra_files=extra)
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
    """The classifier computes what the module computes on its own normalisation."""
    images = torch.rand(3, *classifier.spec.size)
    with torch.no_grad():
        expected = module((images - classifier.mean) / classifier.std)
        assert torch.allclose(classifier(images), expected, atol=1e-5)
    assert not classifier.training
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


class FixedBatch(nn.Module):
    """Six classes of images of 1x16x16, eight at a time."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(256, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.reshape(8, 256))
