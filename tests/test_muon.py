"""Muon: filters move in orthogonal directions, all other parameters as with SGD."""

import copy

import pytest
import torch
from torch import nn

from dfkd_cli.training.fine_tuning import FineTuningMuon
from dfkd_cli.training.muon import Muon, find_filters, orthogonal


class SmallNetwork(nn.Module):
    """Return a convolution with BatchNorm, and a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Linear(32, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(images)).flatten(1))


def learn(network: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor) -> None:
    optimizer.zero_grad()
    network(images).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("shape", [(3, 8, 27), (2, 27, 8), (1, 1, 5), (1, 6, 6)])
def test_singular_values_become_about_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices).double())
    large = torch.linalg.svdvals(matrices) > 0.1 * matrices.norm(dim=(1, 2)).unsqueeze(1)
    assert ((values[large] > 0.6) & (values[large] < 1.3)).all()


@pytest.mark.parametrize("rank", [2, 8])
def test_the_direction_is_that_of_the_published_iteration(rank):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(3, 8, rank, generator=generator), torch.randn(3, rank, 27, generator=generator)
    iterate = (left @ right).double()
    iterate /= iterate.norm(dim=(1, 2), keepdim=True)
    for _ in range(5):
        gram = iterate @ iterate.mT
        iterate = 3.4445 * iterate + (-4.7750 * gram + 2.0315 * gram @ gram) @ iterate
    assert torch.allclose(orthogonal(left @ right).double(), iterate, atol=1e-4)


def test_directions_do_not_depend_on_scale_or_rotation():
    matrix = torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    assert torch.allclose(orthogonal(1e6 * matrix), orthogonal(matrix))
    assert torch.allclose(orthogonal(turn @ matrix), turn @ orthogonal(matrix))
    assert torch.equal(orthogonal(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def muon(network: nn.Module, weight_decay: float = 0.0, filter_decay: float = 0.1) -> Muon:
    return Muon(
        network, 0.1, 0.9, weight_decay, filter_lr=0.05, filter_decay=filter_decay, filters=find_filters(network)
    )


def test_the_step_is_that_of_the_definition():
    network, images = SmallNetwork(), torch.rand(4, 3, 4, 4)
    filters, moment = network.conv.weight, torch.zeros(8, 27, dtype=torch.float64)
    optimizer = muon(network)
    for _ in range(3):
        before = filters.detach().double().flatten(1)
        gradient = torch.autograd.grad(network(images).square().mean(), filters)[0].double().flatten(1)
        moment = 0.9 * moment + gradient
        direction = orthogonal((gradient + 0.9 * moment).unsqueeze(0))[0]
        expected = (1 - 0.05 * 0.1) * before - 0.05 * 0.2 * 27**0.5 * direction
        learn(network, optimizer, images)
        assert torch.allclose(filters.detach().double().flatten(1), expected, atol=1e-5)


def test_the_decay_bounds_the_size_of_a_filter():
    network = SmallNetwork()
    optimizer = muon(network, filter_decay=10.0)
    for _ in range(200):
        learn(network, optimizer, torch.rand(4, 3, 4, 4))
    assert network.conv.weight.square().mean().sqrt() < 1.2 * 0.2 / 10.0


def test_parameters_that_are_no_filters_are_trained_as_with_sgd():
    ours, theirs, images = SmallNetwork(), SmallNetwork(), torch.rand(4, 3, 4, 4)
    learn(ours, muon(ours, weight_decay=1e-3), images)
    learn(theirs, torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=1e-3, nesterov=True), images)
    assert torch.allclose(ours.head.weight, theirs.head.weight)
    assert not torch.allclose(ours.conv.weight, theirs.conv.weight)


def test_filters_join_all_their_channels_and_count_once():
    shared = nn.Conv2d(4, 4, 1)
    again = nn.Conv2d(4, 4, 1)
    again.weight = shared.weight
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), shared, nn.Conv2d(4, 8, 3, groups=2), again)
    assert find_filters(network) == [shared.weight]


def test_computed_weights_are_no_filters():
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)))
    assert find_filters(network) == []
    assert Muon(network, 0.1, 0.9, 0.0, filter_lr=0.1, filter_decay=0.1, filters=find_filters(network)).step() is None


def test_filters_without_a_gradient_stay_or_shrink():
    network = SmallNetwork()
    before = network.conv.weight.detach().clone()
    optimizer = muon(network)
    optimizer.step()
    assert torch.equal(network.conv.weight, before)
    network.conv.weight.grad = torch.zeros_like(before)
    optimizer.step()
    assert torch.allclose(network.conv.weight, (1 - 0.05 * 0.1) * before)


def test_a_restored_optimizer_makes_the_same_steps():
    network, images = SmallNetwork(), torch.rand(4, 3, 4, 4)
    optimizer = muon(network, weight_decay=1e-3)
    learn(network, optimizer, images)
    other = SmallNetwork()
    other.load_state_dict(network.state_dict())
    restored = muon(other, weight_decay=1e-3)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    learn(network, optimizer, images)
    learn(other, restored, images)
    assert torch.equal(network.conv.weight, other.conv.weight)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_steps_of_a_trained_network_are_in_proportion_to_the_weights(orthogonal):
    """A filter ten times as large, whose gradient is ten times as small, ends ten times as large."""
    ends = []
    for size in (1.0, 10.0):
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 4, 3, bias=False)
        layer.weight.data *= size
        filters = find_filters(layer) if orthogonal else []
        optimizer = FineTuningMuon(layer, 0.1, 0.9, filter_decay=0.1, filters=filters)
        for _ in range(3):
            layer.weight.grad = layer.weight.detach().roll(1, 0) / size**2
            optimizer.step()
        ends.append(layer.weight.detach() / size)
    torch.testing.assert_close(ends[1], ends[0])


def test_vectors_of_a_trained_network_move_as_with_adam():
    ours, theirs = SmallNetwork(), SmallNetwork()
    optimizer = FineTuningMuon(ours, 0.01, 0.9, filter_decay=0.0, filters=find_filters(ours))
    others = [parameter for name, parameter in theirs.named_parameters() if name != "conv.weight"]
    adam = torch.optim.Adam(others, 0.01, betas=(0.9, 0.999))
    for step in range(3):
        for network in (ours, theirs):
            for place, parameter in enumerate(network.parameters()):
                torch.manual_seed(100 * step + place)
                parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        adam.step()
    for name, parameter in theirs.named_parameters():
        if parameter.dim() == 1:
            torch.testing.assert_close(ours.get_parameter(name), parameter, rtol=0.0, atol=3e-4)


def test_a_vanishing_gradient_has_no_direction():
    assert orthogonal(torch.full((1, 3, 4), 1e-27)).abs().max() < 1e-9


def test_a_vanishing_gradient_moves_no_vector():
    layer = nn.Linear(3, 2)
    before = layer.bias.detach().clone()
    optimizer = FineTuningMuon(layer, 0.01, 0.9, filter_decay=0.0, filters=[])
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 1e-26)
    optimizer.step()
    torch.testing.assert_close(layer.bias.detach(), before)
