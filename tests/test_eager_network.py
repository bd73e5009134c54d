"""Tests of eager networks: layers in the order of their calls, embedding and stages, and no remaining hooks."""

import warnings

import pytest
import torch
from network_zoo import SIZE, batchnorm_loss, make_images, make_module
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from dfkd_cli.networks import EagerNetwork


def _network(name: str) -> EagerNetwork:
    return EagerNetwork(make_module(name), input_size=SIZE)


def test_statistics_are_paired_with_calls_not_with_registration():
    network = _network("tangled")
    layers = network.module
    expected = [layers.norm, layers.norm, None, layers.last_norm]
    for statistics, layer in zip(network.norm_statistics, expected, strict=True):
        assert statistics.mean is (layers.mean if layer is None else layer.running_mean)


def test_the_embedding_gives_the_logits_through_the_head():
    module = make_module("test_resnet")
    outputs = EagerNetwork(module, input_size=SIZE).observe(make_images())
    torch.testing.assert_close(module.fc(outputs.embedding), outputs.logits)


def test_stages_are_one_map_per_resolution_large_to_small():
    shapes = [tuple(stage.shape) for stage in _network("test_resnet").observe(make_images()).stages]
    assert shapes == [(4, 32, 16, 16), (4, 32, 8, 8), (4, 48, 4, 4), (4, 192, 2, 2)]


def test_attention_weights_are_no_stage():
    assert [tuple(stage.shape) for stage in _network("vit").observe(make_images()).stages] == [(4, 64, 4, 4)]


def test_neither_attention_weights_as_large_as_a_map_nor_slices_of_a_map_are_stages():
    shapes = [tuple(stage.shape) for stage in _network("attending").observe(make_images()).stages]
    assert shapes == [(4, 6, 16, 16), (4, 8, 4, 4)]


class OthersFrozen(nn.Module):
    """As in detectron2: PyTorch's function without gradients, a product and a sum with gradients."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int):
        super().__init__()
        for name, values in {
            "running_mean": torch.linspace(-1, 1, channels),
            "running_var": torch.ones(channels),
        }.items():
            self.register_buffer(name, values)

    def forward(self, x):
        if not x.requires_grad:
            return nn.functional.batch_norm(x, self.running_mean, self.running_var)
        return (x - self.running_mean.view(1, -1, 1, 1)) * (self.running_var + 1e-5).rsqrt().view(1, -1, 1, 1)


class ChannelsLastNorm(nn.Module):
    """Normalises the last dimension, so its input is not that of the BatchNorm inside."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        swapped = nn.functional.batch_norm(x.movedim(-1, 1), self.running_mean, self.running_var)
        return swapped.movedim(1, -1)


class OfSomethingElse(ChannelsLastNorm):
    """Has running statistics, but takes a pair of tensors or no argument."""

    def forward(self, *pairs):
        return pairs[0][0] if pairs else None


@pytest.mark.parametrize("frozen", [FrozenBatchNorm2d, FrozenBatchNormAct2d, OthersFrozen])
def test_frozen_batchnorm_is_observed_and_its_hooks_are_removed(frozen):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), frozen(4), frozen(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = EagerNetwork(module, input_size=SIZE)
    assert [statistics.mean for statistics in network.norm_statistics] == [
        module[1].running_mean,
        module[2].running_mean,
    ]
    for images in (make_images(), make_images().requires_grad_()):
        seen = network.observe(images).norm_inputs
        assert len(seen) == 2
        torch.testing.assert_close(seen[0], module[0](images))
        torch.testing.assert_close(seen[1], module[:2](images))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())


def test_a_layer_that_calls_batchnorm_counts_once_with_its_inner_input():
    channels = SIZE[1] - 2  # of the last dimension, and by chance not the second
    module = nn.Sequential(nn.Conv2d(3, 4, 3), ChannelsLastNorm(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (seen,) = EagerNetwork(module, input_size=SIZE).observe(make_images()).norm_inputs
    torch.testing.assert_close(seen, module[0](make_images()).movedim(-1, 1))


def test_statistics_of_something_else_are_not_taken_for_a_norm():
    class Network(nn.Sequential):
        def forward(self, images):
            self[1]()
            return self[2](self[1]((self[0](images), images)))

    network = EagerNetwork(Network(nn.Conv2d(3, 4, 3), OfSomethingElse(4), nn.Flatten()), input_size=SIZE)
    assert network.norm_statistics == ()
    assert network.observe(make_images()).norm_inputs == ()


def test_a_scripted_layer_is_not_hooked():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        part = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval())
    network = EagerNetwork(nn.Sequential(part, nn.BatchNorm2d(4), nn.Flatten()).eval(), input_size=SIZE)
    assert len(network.norm_statistics) == len(network.observe(make_images()).norm_inputs) == 1


def test_finding_the_order_of_calls_does_not_change_a_student():
    module = make_module("test_resnet").train()
    module.layer1.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    EagerNetwork(module, input_size=SIZE)
    assert module.training
    assert not module.layer1.training
    torch.testing.assert_close(module.state_dict(), before)


def test_without_an_input_size_layers_are_taken_as_registered():
    module = make_module("test_resnet")
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    for statistics, layer in zip(EagerNetwork(module).norm_statistics, layers, strict=True):
        assert statistics.var is layer.running_var


def test_torch_compile_traces_observe_without_a_break():
    network = _network("tangled")

    def loss(inputs):
        return batchnorm_loss(network, inputs)

    inputs = make_images().requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    expected, result = (torch.autograd.grad(function(inputs), inputs) for function in (loss, compiled))
    torch.testing.assert_close(result, expected)
