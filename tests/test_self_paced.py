"""The self-paced weight minimises the regularised loss and has the properties of self-paced learning."""

import math

import pytest
import torch

from dfkd_cli.training.distillation.self_paced import self_paced_weight

LOSSES = torch.tensor([0.0, 0.05, 0.4, 0.9, 1.3, 2.0, 3.7, 8.0], dtype=torch.float64)


def log_regulariser(weight, threshold):
    rest = 1.0 + math.exp(-threshold) - weight
    return torch.xlogy(rest, rest) + torch.xlogy(weight, weight) - threshold * weight


REGULARISERS = {
    "hard": lambda weight, threshold: -threshold * weight,
    "soft": lambda weight, threshold: 0.5 * threshold * (weight.square() - 2.0 * weight),
    "log": log_regulariser,
}


@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.1, 5.0])
@pytest.mark.parametrize("pacing", REGULARISERS)
def test_the_weight_minimises_weighted_loss_plus_regulariser(pacing, threshold):
    grid = torch.linspace(0.0, 1.0, 100_001, dtype=torch.float64)
    for loss in LOSSES:
        objective = grid * loss + REGULARISERS[pacing](grid, threshold)
        best = grid[objective.argmin()]
        assert self_paced_weight(loss, threshold, pacing).item() == pytest.approx(best.item(), abs=2e-5)


@pytest.mark.parametrize("pacing", REGULARISERS)
def test_easy_samples_count_whole_hard_ones_less_and_a_larger_threshold_lets_more_in(pacing):
    weights = self_paced_weight(LOSSES, 2.1, pacing)
    assert weights[0] == 1.0
    assert (weights.diff() <= 0).all()
    assert weights[-1] < 0.01
    assert (self_paced_weight(LOSSES, 4.0, pacing) >= weights).all()


def test_the_log_form_has_the_values_computed_by_hand():
    losses = torch.tensor([0.5, 1.0, 2.0, 5.0])
    torch.testing.assert_close(
        self_paced_weight(losses, 1.0, "log"), torch.tensor([0.85, 0.68, 0.37, 0.025]), atol=0.006, rtol=0
    )
    assert self_paced_weight(losses[1], 1.0, "log").item() == pytest.approx((1 + math.exp(-1.0)) / 2)


def test_no_pacing_weighs_every_sample_the_same():
    assert torch.equal(self_paced_weight(LOSSES, 1.0, "none"), torch.ones_like(LOSSES))


@pytest.mark.parametrize("pacing", ["soft", "log"])
def test_the_weight_is_a_constant_of_the_loss(pacing):
    loss = LOSSES.clone().requires_grad_()
    assert not self_paced_weight(loss, 2.0, pacing).requires_grad
