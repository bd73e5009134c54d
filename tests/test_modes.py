"""Tests of the context managers that switch networks to evaluation mode."""

import pytest
import torch
from torch import nn

from dfkd_cli.networks.modes import evaluating, frozen


@pytest.fixture
def network() -> nn.Sequential:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout()).train()
    network[1].eval()
    network[0].bias.requires_grad_(False)
    return network


def modes(network: nn.Module) -> list[bool]:
    return [layer.training for layer in network.modules()]


def test_evaluating_switches_every_module_and_restores_each_layer(network: nn.Sequential) -> None:
    other = nn.Dropout()
    before = modes(network)
    with evaluating(network, other):
        assert not any(modes(network))
        assert not other.training
        assert not network(torch.rand(2, 1, 3, 3)).requires_grad
    assert modes(network) == before
    assert other.training
    assert torch.is_grad_enabled()


def test_frozen_leaves_gradients_of_the_input_only(network: nn.Sequential) -> None:
    before = modes(network)
    images = torch.rand(2, 1, 3, 3, requires_grad=True)
    with frozen(network):
        assert not any(modes(network))
        network(images).sum().backward()
    assert images.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())
    assert modes(network) == before
    assert [p.requires_grad for p in network.parameters()] == [True, False, True, True]


@pytest.mark.parametrize("manager", [evaluating, frozen])
def test_the_state_is_restored_after_an_error(network: nn.Sequential, manager) -> None:
    before = modes(network), [p.requires_grad for p in network.parameters()]
    with pytest.raises(RuntimeError, match="stop"), manager(network):
        raise RuntimeError("stop")
    assert (modes(network), [p.requires_grad for p in network.parameters()]) == before
