"""What an eager network shows: layers in the order of their calls, embedding and stages, with nothing left behind."""

import torch
from network_zoo import SIZE, batchnorm_loss, make_images, make_module
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


def test_neither_attention_weights_as_large_as_a_map_nor_parts_of_a_map_are_stages():
    shapes = [tuple(stage.shape) for stage in _network("attending").observe(make_images()).stages]
    assert shapes == [(4, 6, 16, 16), (4, 8, 4, 4)]


def test_frozen_batchnorm_is_seen_and_its_hooks_are_gone_afterwards():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = EagerNetwork(module, input_size=SIZE)
    outputs = network.observe(make_images())
    torch.testing.assert_close(outputs.norm_inputs[0], module[0](make_images()))
    assert network.norm_statistics[0].mean is module[1].running_mean
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())


def test_looking_for_the_order_of_calls_leaves_a_student_as_it_was():
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
