"""Attention transfer against its definition in float64, and its properties."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from dfkd_cli.training.distillation.attention import AttentionForm, attention, attention_transfer, match_stages

FORMS = get_args(AttentionForm)


def stages(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(3, *shape, generator=rng) for shape in shapes]


STUDENT, TEACHER = stages((4, 8, 8), (6, 4, 4)), stages((5, 8, 8), (7, 4, 4), seed=1)


@pytest.mark.parametrize("form", FORMS)
def test_attention_transfer_is_its_definition(form):
    expected = torch.zeros(3, dtype=torch.float64)
    for sample in range(3):
        for one, other in zip(STUDENT, TEACHER, strict=True):
            student, teacher = (each[sample].double().pow(2).sum(0).flatten() for each in (one, other))
            error = (student / student.pow(2).sum().sqrt() - teacher / teacher.pow(2).sum().sqrt()).pow(2)
            expected[sample] += error.sum() if form == "sum" else error.sum() / len(error)
    torch.testing.assert_close(attention_transfer(STUDENT, TEACHER, form).double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_attention_transfer_ignores_the_scale_of_either_network(form):
    scaled = [30.0 * features for features in STUDENT]
    expected = attention_transfer(STUDENT, TEACHER, form)
    torch.testing.assert_close(attention_transfer(scaled, TEACHER, form), expected)
    torch.testing.assert_close(attention_transfer(STUDENT, [0.01 * features for features in TEACHER], form), expected)


@pytest.mark.parametrize("form", FORMS)
def test_attention_transfer_is_zero_exactly_where_maps_are_equal(form):
    torch.testing.assert_close(attention_transfer(STUDENT, STUDENT, form), torch.zeros(3), rtol=0, atol=1e-12)
    assert (attention_transfer(STUDENT, TEACHER, form) > 1e-3).all()


def test_the_sum_has_one_bound_at_every_size_and_the_mean_has_not():
    left, right = torch.zeros(1, 2, 16, 16), torch.zeros(1, 2, 16, 16)
    left[..., :8], right[..., 8:] = 1.0, 1.0
    assert attention_transfer([left], [right], "sum").item() == pytest.approx(2.0, rel=1e-5)
    assert attention_transfer([left], [right], "mean").item() == pytest.approx(2.0 / 256, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_maps_of_zeros_have_a_value_and_a_gradient(form):
    dead = torch.zeros(3, 4, 8, 8, requires_grad=True)
    loss = attention_transfer([dead], TEACHER[:1], form).sum()
    (gradient,) = torch.autograd.grad(loss, dead)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert torch.equal(attention(dead), torch.zeros(3, 64))


def sizes(student: list[Tensor], teacher: list[Tensor]) -> list[tuple[tuple[int, ...], ...]]:
    return [tuple(tuple(each.shape[2:]) for each in pair) for pair in match_stages(student, teacher)]


def test_stages_of_equal_size_are_matched_whatever_their_number():
    student = stages((4, 16, 16), (4, 8, 8))
    teacher = stages((4, 32, 32), (4, 16, 16), (4, 8, 8), (4, 4, 4))
    assert sizes(student, teacher) == [((16, 16), (16, 16)), ((8, 8), (8, 8))]
    assert [other is teacher[index] for (_, other), index in zip(match_stages(student, teacher), (1, 2), strict=True)]


def test_without_equal_sizes_the_last_stages_are_matched_and_the_larger_map_is_averaged():
    student, teacher = stages((4, 14, 14), (4, 7, 6)), stages((4, 32, 32), (4, 16, 16), (4, 8, 8))
    assert sizes(student, teacher) == [((7, 6), (7, 6)), ((14, 14), (14, 14))]
    flat = torch.full((1, 1, 16, 16), 3.0)
    ((_, averaged),) = match_stages([torch.ones(1, 1, 8, 8)], [flat])
    assert torch.equal(averaged, torch.full((1, 1, 8, 8), 3.0))


def test_the_gradient_reaches_the_student_through_a_map_that_was_averaged():
    student = torch.randn(2, 3, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(attention_transfer([student], [torch.randn(2, 5, 4, 4)], "sum").sum(), student)
    assert gradient.abs().max() > 1e-6
