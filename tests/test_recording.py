"""Tests of TorchScript archives traced to plain operations for torch.compile."""

import pytest
import torch
from network_zoo import batchnorm_loss, make_images, make_module
from torch import nn

from dfkd_cli.networks import ExportedNetwork, ScriptNetwork

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
FORMS = {
    "traced": lambda module, images: torch.jit.trace(module, images),
    "scripted": lambda module, images: torch.jit.script(module),
}


def _network(form: str, module: nn.Module, images: torch.Tensor) -> ScriptNetwork:
    archive = FORMS[form](module.eval(), images)
    return ScriptNetwork(archive, input_size=tuple(images.shape[1:]))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["test_resnet", "tangled"])
@pytest.mark.parametrize("form", list(FORMS))
def test_torch_compile_traces_all_of_a_recorded_archive(form, name):
    images = make_images(6)
    network = _network(form, make_module(name), images)
    wanted = network.observe(images)
    assert not network.compilable

    assert network.make_compilable(6) is None
    assert network.compilable
    torch.testing.assert_close(network.observe(images), wanted)

    def loss(inputs):
        return batchnorm_loss(network, inputs)

    inputs = make_images(6).requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    result = torch.autograd.grad(compiled(inputs), inputs)
    network._recordings.clear()
    torch.testing.assert_close(result, torch.autograd.grad(loss(inputs), inputs))


def test_batches_of_another_size_run_as_torchscript():
    network = _network("traced", make_module("test_resnet"), make_images())
    wanted = network(make_images(7))
    network.make_compilable(4)
    torch.testing.assert_close(network(make_images(7)), wanted)


def test_an_archive_with_a_fixed_batch_size_is_recorded_at_it():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3 * 4 * 4, 5)

        def forward(self, x):
            return self.head(x.view(16, -1))

    network = _network("traced", Fixed(), torch.randn(16, 3, 4, 4))
    images = torch.randn(21, 3, 4, 4)
    wanted = network(images)
    assert network.make_compilable(64) is None
    torch.testing.assert_close(network(images), wanted)
    assert list(network._recordings) == [network.batch_size] == [16]


class Branching(nn.Module):
    """Has a data-dependent branch, which a list of operations cannot express."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 5)

    def forward(self, x):
        rows = x.flatten(1)
        if bool(rows.mean() > -1000):
            rows = -rows
        return self.head(rows)


class Random(nn.Module):
    """Adds random numbers, so its outputs differ at every call."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 5)

    def forward(self, x):
        return self.head(x.flatten(1) + torch.rand_like(x.flatten(1)))


@pytest.mark.parametrize("module", [Branching, Random])
def test_what_cannot_be_recorded_stays_torchscript_with_a_reason(module):
    network = _network("scripted", module(), torch.randn(4, 3, 4, 4))
    assert network.make_compilable(4)
    assert not network.compilable
    assert network(torch.randn(4, 3, 4, 4)).shape == (4, 5)


@pytest.mark.parametrize("form", ["traced", "decomposed"])
def test_autocast_reaches_the_convolutions_of_archives(form):
    module, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(5)), make_images()
    module.eval()(images)
    if form == "traced":
        network = _network("traced", module, images)
    else:
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        network = ExportedNetwork(torch.export.export(module, (images,), dynamic_shapes=shapes).run_decompositions())
    with torch.autocast("cpu", torch.bfloat16):
        (norm_input,) = network.observe(images).norm_inputs
    assert norm_input.dtype == torch.bfloat16
