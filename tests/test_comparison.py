"""The comparison of an exported file with its network."""

import pytest
import torch
from torch import Tensor, nn

from dfkd_cli.errors import DfkdError
from dfkd_cli.export.comparison import compare
from dfkd_cli.export.job import ExportJob
from dfkd_cli.export.probes import Probe
from dfkd_cli.loading.options import LoadOptions
from dfkd_cli.networks.classifier import Classifier, InputSpec, Origin
from dfkd_cli.networks.eager import EagerNetwork

JOB = ExportJob("student", LoadOptions(), "torchscript", None, False, dynamic_batch=False, with_preprocessing=False)
PROBE = Probe(torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0)), "noise")


class Waves(nn.Module):
    """Answers that change by `steepness` times as much as the images do."""

    def __init__(self, steepness: float):
        super().__init__()
        self.steepness = steepness

    def forward(self, images: Tensor) -> Tensor:
        return torch.sin(self.steepness * images.flatten(1))


def classifier(steepness: float) -> Classifier:
    spec = InputSpec((1, 2, 2), mean=(0.0,), std=(1.0,), num_classes=4)
    return Classifier(EagerNetwork(Waves(steepness), input_size=spec.size), spec, Origin("test", "test", None, None))


def other_kernels(steepness: float, shift: float = 0.0):
    """Return the same function, computed with an error of 1e-7 of the images."""
    return lambda images: torch.sin(steepness * (images * (1.0 + 1e-7) + shift))[:, 0].flatten(1)


def test_rounding_of_a_network_that_enlarges_it_is_no_difference():
    compared = compare(classifier(1e4), other_kernels(1e4), PROBE, JOB)
    assert 1e-4 < compared.largest_difference < 1e-2


@pytest.mark.parametrize(("steepness", "shift"), [(1.0, 1e-3), (1e4, 1e-5), (1e6, 1e-7)])
def test_more_than_rounding_is_refused(steepness, shift):
    with pytest.raises(DfkdError, match="does not compute the same as the network: on noise, outputs up to"):
        compare(classifier(steepness), other_kernels(steepness, shift), PROBE, JOB)
