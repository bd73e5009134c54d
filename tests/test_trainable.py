"""Tests of the trainable modules made from networks of any form."""

import json
from typing import Any

import pytest
import torch
import torch_pruning
from archive_networks import FORMS, archive, make_network
from torch import Tensor, nn

from dfkd_cli.errors import UsageError
from dfkd_cli.networks import EagerNetwork, check_forward, input_gradient_reaches
from dfkd_cli.networks.first_layer import first_layer
from dfkd_cli.networks.graphs.graph_data import from_data, to_data
from dfkd_cli.networks.graphs.trainable import TrainableError, trainable_module

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated"),
    pytest.mark.filterwarnings("ignore:Unwrapped parameters detected"),
]
# The convolution whose outputs are narrowed.
SMALL = {"cifar_resnet20": "layer2.1.conv1", "vgg": "features.0", "lenet5": "conv1", "grouped": "dilated"}
LARGE = (
    ("resnet18", "fixed", "layer1.0.conv1"),
    ("mobilenetv3_small_050", "script", "blocks.1.0.conv_pw"),
    ("efficientnet_b0", "dynamic", "blocks.1.0.conv_pw"),
)
CASES = [(name, form, layer) for name, layer in SMALL.items() for form in FORMS] + list(LARGE)


def _images(size: tuple[int, int, int], batch: int = 3) -> Tensor:
    return torch.rand(batch, *size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("name", "form", "inner"), CASES)
def test_archives_become_layers_that_torch_pruning_narrows(name, form, inner):
    original, size = make_network(name)
    module = trainable_module(archive(original, size, form), size)
    assert module.training
    assert {key: value.shape for key, value in module.state_dict().items()} == {
        key: value.shape for key, value in original.state_dict().items()
    }
    for name, part in module.named_modules():
        if list(part.parameters(recurse=False)):
            assert isinstance(original.get_submodule(name), type(part))

    module.eval()
    layer: Any = module.get_submodule(inner)
    before = layer.out_channels
    with torch.no_grad():
        expected = original(_images(size))
        assert torch.allclose(module(_images(size)), expected, atol=1e-4 * float(expected.abs().max()))
    graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=_images(size, 1))
    group = graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, idxs=list(range(before // 2)))
    group.prune()
    assert layer.out_channels == before - before // 2
    narrowed = module.train()(_images(size, 5))
    assert narrowed.shape == (5, 10)
    narrowed.sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_other_forms_become_layers(form):
    original, size = make_network("weights")
    module: Any = trainable_module(archive(original, size, form), size)
    kinds = sorted(type(layer).__name__ for layer in module.modules() if not list(layer.children()))
    assert kinds == sorted(
        ["Conv2d"] * 3
        + ["GroupNorm", "InstanceNorm2d", "ConvTranspose2d", "Linear", "LayerNorm", "Dropout2d", "Linear"]
    )
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    shared = [layer.weight for layer in convolutions if layer.kernel_size == (3, 3)]
    assert shared[0] is shared[1]
    assert torch.equal(module.weight, original.weight)
    assert isinstance(module.weight, nn.Parameter)


def test_nothing_is_shared_and_batchnorm_trains():
    original, size = make_network("vgg")
    network = archive(original, size, "script")
    module: Any = trainable_module(network, size)
    theirs = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert not theirs & {tensor.data_ptr() for tensor in module.state_dict().values()}
    norm = module.features.get_submodule("1")
    before = norm.running_mean.clone()
    module.eval()(_images(size))
    assert torch.equal(norm.running_mean, before)
    module.train()(_images(size))
    assert not torch.equal(norm.running_mean, before)
    dropout = [layer for layer in module.modules() if isinstance(layer, nn.Dropout)]
    assert [layer.p for layer in dropout] == [0.5]


def test_an_eager_network_is_copied_and_its_logits_are_picked():
    original, size = make_network("vgg")
    module = trainable_module(EagerNetwork(original.requires_grad_(False), input_size=size), size)
    assert type(module) is type(original)
    assert module is not original
    assert all(parameter.requires_grad for parameter in module.parameters())

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = original

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"logits": self.inner(images), "maps": images}

    module = trainable_module(EagerNetwork(Two(), "logits", input_size=size), size)
    assert torch.equal(module.eval()(_images(size)), original(_images(size)))


class OtherNames(nn.Module):
    """Other names of usual operations, and an equation without its result."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.weight = nn.Parameter(torch.randn(8, 10))

    def forward(self, x: Tensor) -> Tensor:
        both = torch.concat([self.left(x), self.right(x)], dim=1).clip(0.0, 6.0)
        means = torch.divide(torch.multiply(both, 2.0).swapdims(2, 3).sum(dim=(2, 3)), 196.0)
        return torch.einsum("bc,ck", torch.special.softmax(means, 1), self.weight)


@pytest.mark.parametrize("form", FORMS)
def test_other_names_of_operations_are_trained_and_saved(form):
    size = (3, 16, 16)
    torch.manual_seed(0)
    module: Any = trainable_module(archive(OtherNames().eval(), size, form), size).eval()
    loaded = from_data(json.loads(json.dumps(to_data(module))), module.state_dict()).eval()
    torch.testing.assert_close(loaded(_images(size)), module(_images(size)))


class ChangesItsInput(nn.Module):
    """Normalises the images in place, before a first BatchNorm that tells what they were."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(0.25)
        return self.head(torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))


@pytest.mark.parametrize("form", FORMS)
def test_a_network_that_changes_its_input_is_loaded_and_trained(form):
    size = (3, 16, 16)
    torch.manual_seed(0)
    network = archive(ChangesItsInput().eval(), size, form)
    assert check_forward(network, size).notes == ()
    assert input_gradient_reaches(network, size)
    layer = first_layer(network, size)
    assert layer is not None
    assert layer.filters.shape == (8, 3, 3, 3)
    trainable_module(network, size)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(48, 10, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.permute(0, 2, 1, 3).flatten(2))[0].mean(1)


class Counting(nn.Module):
    """Numbers the images of a batch, whose recorded size is not where sizes of batches usually are."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean(2).flatten(1)) + 0.0 * torch.arange(x.shape[0]).unsqueeze(1)


@pytest.mark.parametrize(
    ("module", "form", "says"), [(Recurrent, "dynamic", "aten.lstm"), (Counting, "fixed", "with 2 images")]
)
def test_what_resists_is_named_with_what_works(module, form, says):
    size = (3, 16, 16)
    torch.manual_seed(0)
    with pytest.raises(TrainableError, match=says) as caught:
        trainable_module(archive(module().eval(), size, form), size)
    assert "--student cifar_resnet8" in str(caught.value)
    assert caught.value.exit_code == UsageError.exit_code
