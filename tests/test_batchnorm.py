"""The distance to BatchNorm statistics: its definition, its properties, and its independence of scale."""

import pytest
import torch

from dfkd_cli.networks import NormStatistics
from dfkd_cli.synthesis.batchnorm import (
    DISTANCES,
    batchnorm_loss,
    channel_moments,
    gaussian_kl,
    norm_distance,
    relative_distance,
)


def layer_input(seed: int = 0) -> torch.Tensor:
    return 2.0 + 3.0 * torch.randn(16, 5, 6, 6, generator=torch.Generator().manual_seed(seed))


def test_channel_moments_are_what_batchnorm_normalises_with():
    inputs = layer_input()
    norm = torch.nn.BatchNorm2d(5, momentum=1.0, affine=False)
    norm(inputs)
    mean, var = channel_moments(inputs, torch.zeros(5))
    count = inputs.numel() / 5
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(mean, norm.running_mean)
    torch.testing.assert_close(var, norm.running_var * (count - 1) / count)


def test_moments_far_from_zero_are_exact_with_a_near_shift():
    inputs = layer_input()
    mean, var = channel_moments(inputs + 1e4, torch.full((5,), 1e4))
    expected = torch.var_mean((inputs + 1e4).double(), dim=(0, 2, 3), correction=0)
    torch.testing.assert_close((var, mean), tuple(moment.float() for moment in expected), rtol=1e-5, atol=0)


def test_channel_moments_take_two_dimensional_inputs():
    mean, var = channel_moments(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.zeros(2))
    assert (mean.tolist(), var.tolist()) == ([2.0, 2.0], [1.0, 0.0])


def test_gaussian_kl_is_the_divergence_of_the_two_gaussians():
    mean, var, running_mean, running_var = (torch.rand(4, dtype=torch.double) + 0.5 for _ in range(4))
    batch = torch.distributions.Normal(mean, var.sqrt())
    running = torch.distributions.Normal(running_mean, running_var.sqrt())
    expected = torch.distributions.kl_divergence(batch, running).mean()
    torch.testing.assert_close(gaussian_kl(mean, var, running_mean, running_var, eps=0.0), expected)


def test_relative_distance_is_the_published_one_in_units_of_the_layer():
    mean, var, running_mean, running_var = (torch.rand(4, dtype=torch.double) + 0.5 for _ in range(4))
    shift = (mean - running_mean).square().sum().sqrt() / running_var.sum().sqrt()
    spread = (var - running_var).square().sum().sqrt() / running_var.square().sum().sqrt()
    torch.testing.assert_close(relative_distance(mean, var, running_mean, running_var), shift + spread)


def test_norm_distance_is_the_published_one():
    mean, var, running_mean, running_var = (torch.rand(4, dtype=torch.double) + 0.5 for _ in range(4))
    shift, spread = (mean - running_mean).square().sum().sqrt(), (var - running_var).square().sum().sqrt()
    torch.testing.assert_close(norm_distance(mean, var, running_mean, running_var), shift + spread)


def test_gaussian_kl_and_relative_ignore_the_scale_of_a_layer_and_its_width_and_the_published_form_does_not():
    moments = tuple(torch.rand(4) + 0.5 for _ in range(4))
    mean, var, running_mean, running_var = moments
    scaled = (10 * mean, 100 * var, 10 * running_mean, 100 * running_var)
    wide = tuple(moment.repeat(9) for moment in moments)
    for other in (scaled, wide):
        torch.testing.assert_close(gaussian_kl(*other, eps=0.0), gaussian_kl(*moments, eps=0.0))
        torch.testing.assert_close(relative_distance(*other), relative_distance(*moments))
        assert norm_distance(*other) > 2.9 * norm_distance(*moments)


@pytest.mark.parametrize("form", DISTANCES)
def test_the_loss_is_zero_on_the_layers_own_statistics_and_positive_elsewhere(form):
    inputs = layer_input()
    own = NormStatistics(*channel_moments(inputs, torch.zeros(5)))
    other = NormStatistics(own.mean + 1.0, own.var * 2.0)
    assert batchnorm_loss([inputs], [own], form).item() == pytest.approx(0.0, abs=1e-5)
    assert batchnorm_loss([inputs], [other], form).item() > 0.05


@pytest.mark.parametrize("form", DISTANCES)
def test_a_constant_batch_has_a_finite_gradient(form):
    inputs = torch.ones(4, 5, 3, 3, requires_grad=True)
    batchnorm_loss([inputs], [NormStatistics(torch.zeros(5), torch.ones(5))], form).backward()
    assert inputs.grad is not None
    assert inputs.grad.isfinite().all()


def test_norm_adds_layers_up_and_the_others_average():
    inputs = layer_input()
    running = NormStatistics(torch.zeros(5), torch.ones(5))
    once = {form: batchnorm_loss([inputs], [running], form) for form in DISTANCES}
    twice = {form: batchnorm_loss([inputs] * 2, [running] * 2, form) for form in DISTANCES}
    torch.testing.assert_close(twice["kl"], once["kl"])
    torch.testing.assert_close(twice["relative"], once["relative"])
    torch.testing.assert_close(twice["norm"], 2 * once["norm"])
