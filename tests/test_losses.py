"""Losses against their definitions in float64, and the laws they keep."""

import math

import pytest
import torch
import torch.nn.functional as F

from dfkd_cli import losses


def random_logits(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_kl_div_is_its_definition(temperature):
    student, teacher = random_logits(5, 7), random_logits(5, 7, seed=1)
    p = F.softmax(teacher.double() / temperature, 1)
    q = F.softmax(student.double() / temperature, 1)
    expected = temperature**2 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(losses.kl_div(student, teacher, temperature).double(), expected, rtol=2e-4, atol=1e-5)


def test_kl_div_is_zero_at_equality_and_ignores_shifts():
    logits = random_logits(5, 7)
    torch.testing.assert_close(losses.kl_div(logits, logits + 3.0, 4.0), torch.zeros(5), rtol=0, atol=1e-5)


def test_kl_div_has_the_same_gradient_size_at_every_temperature():
    """The reason for the T^2: at high temperature the gradient goes to (student - teacher) / K."""
    student, teacher = random_logits(5, 7).requires_grad_(), random_logits(5, 7, seed=1)
    norms = [torch.autograd.grad(losses.kl_div(student, teacher, t).sum(), student)[0].norm() for t in (50.0, 100.0)]
    torch.testing.assert_close(norms[0], norms[1], rtol=0.05, atol=0.0)


def test_batch_entropy_is_log_k_for_balanced_and_zero_for_collapsed_batches():
    balanced, collapsed = 100.0 * torch.eye(4), 100.0 * torch.eye(4)[:1].repeat(6, 1)
    assert losses.batch_entropy(balanced).item() == pytest.approx(math.log(4))
    assert losses.batch_entropy(collapsed).item() == pytest.approx(0.0, abs=1e-6)


def test_batch_entropy_of_a_collapsed_batch_has_a_finite_gradient():
    logits = (500.0 * torch.eye(4)[:1].repeat(6, 1)).requires_grad_()
    losses.batch_entropy(logits).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_activation_size_is_the_mean_absolute_value():
    torch.testing.assert_close(
        losses.activation_size(torch.tensor([[1.0, -3.0], [0.0, 0.5]])), torch.tensor([2.0, 0.25])
    )


def test_total_variation_is_zero_for_flat_and_two_for_checkered_images():
    flat = torch.full((1, 3, 8, 8), 0.3)
    checkered = (torch.arange(8).view(1, 1, 8, 1) + torch.arange(8)).remainder(2).float().repeat(1, 3, 1, 1)
    torch.testing.assert_close(losses.total_variation(torch.cat([flat, checkered])), torch.tensor([0.0, 2.0]))


def test_agreement_counts_equal_classes():
    one, other = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[5.0, 1.0], [2.0, 1.0]])
    assert losses.agreement(one, other).tolist() == [1.0, 0.0]
