"""Losses against their definitions in float64, and their properties."""

import math

import pytest
import torch
import torch.nn.functional as F

from dfkd_cli.synthesis.terms import contested_kl
from dfkd_cli.training.distillation import losses


def random_logits(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_kl_div_is_its_definition(temperature):
    student, teacher = random_logits(5, 7), random_logits(5, 7, seed=1)
    p = F.softmax(teacher.double() / temperature, 1)
    q = F.softmax(student.double() / temperature, 1)
    expected = temperature**2 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(losses.kl_div(student, teacher, temperature).double(), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("cap", [None, 0.5])
def test_contested_kl_counts_images_on_which_both_predict_the_same_class(cap):
    student, teacher = random_logits(64, 3), random_logits(64, 3, seed=1)
    p, q = F.softmax(teacher.double(), 1), F.softmax(student.double(), 1)
    distance = (p * (p / q).log()).sum(1)
    expected = torch.where(p.argmax(1) == q.argmax(1), distance if cap is None else distance.clamp(max=cap), 0.0)
    assert 0 < (expected > 0.0).sum() < 64
    torch.testing.assert_close(contested_kl(student, teacher, cap=cap).double(), expected, rtol=2e-4, atol=1e-5)


def test_kl_div_is_zero_at_equality_and_ignores_shifts():
    logits = random_logits(5, 7)
    torch.testing.assert_close(losses.kl_div(logits, logits + 3.0, 4.0), torch.zeros(5), rtol=0, atol=1e-5)


def test_kl_div_has_the_same_gradient_size_at_every_temperature():
    """At high temperature the gradient approaches (student - teacher) / K, because of the factor T^2."""
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


def test_total_variation_of_a_single_row_or_column_or_pixel():
    line = torch.tensor([0.0, 1.0, 0.0])
    assert losses.total_variation(line.view(1, 1, 1, 3)).tolist() == [1.0]
    assert losses.total_variation(line.view(1, 1, 3, 1)).tolist() == [1.0]
    assert losses.total_variation(torch.ones(2, 3, 1, 1)).tolist() == [0.0, 0.0]


def test_agreement_counts_equal_classes():
    one, other = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[5.0, 1.0], [2.0, 1.0]])
    assert losses.agreement(one, other).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("kept", [1, 3, 7])
@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_class_dropped_kl_is_its_definition(kept, temperature):
    student, teacher = random_logits(5, 7), random_logits(5, 7, seed=1)
    expected = []
    for z_student, z_teacher in zip(student.double(), teacher.double(), strict=True):
        keep = sorted(range(7), key=lambda c: -z_teacher[c].item())[:kept]
        q = (z_teacher[keep] / temperature).exp()
        q = q / q.sum()
        p = (z_student / temperature).exp() / (z_student / temperature).exp().sum()
        expected.append(temperature**2 * (q * (q / p[keep]).log()).sum())
    actual = losses.class_dropped_kl(student, teacher, kept, temperature)
    torch.testing.assert_close(actual.double(), torch.stack(expected), rtol=2e-4, atol=1e-5)


def test_class_dropped_kl_with_every_class_kept_is_kl_div():
    student, teacher = random_logits(5, 7), random_logits(5, 7, seed=1)
    for kept in (7, 1000):
        torch.testing.assert_close(
            losses.class_dropped_kl(student, teacher, kept, 4.0),
            losses.kl_div(student, teacher, 4.0),
            rtol=1e-6,
            atol=1e-6,
        )


def test_the_gradient_of_class_dropped_kl_is_t_times_the_difference_of_the_predictions():
    student, teacher = random_logits(5, 7).requires_grad_(), random_logits(5, 7, seed=1)
    losses.class_dropped_kl(student, teacher, 3, 4.0).mean().backward()
    kept = torch.zeros(5, 7, dtype=torch.bool).scatter(1, teacher.topk(3, dim=1).indices, True)
    q = (teacher / 4.0).exp() * kept
    expected = 4.0 * (F.softmax(student.detach() / 4.0, 1) - q / q.sum(1, keepdim=True)) / 5
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected, rtol=1e-4, atol=1e-6)


def test_class_dropped_kl_of_a_certain_teacher_is_finite():
    student = torch.tensor([[0.0, 1e4, -1e4, 0.0]], requires_grad=True)
    loss = losses.class_dropped_kl(student, torch.tensor([[1e4, 0.0, 0.0, -1e4]]), 3)
    loss.sum().backward()
    assert student.grad is not None
    assert loss.isfinite().all()
    assert student.grad.isfinite().all()


def test_dropped_mass_is_the_probability_of_the_other_classes():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    masses = [losses.dropped_mass(logits, kept).item() for kept in (1, 2, 3, 4, 9)]
    assert masses == pytest.approx([0.5, 0.2, 0.05, 0.0, 0.0], abs=1e-6)


def test_cosine_distance_goes_from_zero_to_four_and_ignores_length():
    one = random_logits(6, 5)
    torch.testing.assert_close(losses.cosine_distance(one, 3 * one), torch.zeros(6), rtol=0, atol=1e-6)
    torch.testing.assert_close(losses.cosine_distance(one, -one), torch.full((6,), 4.0))
    lengths = [
        vectors / vectors.norm(dim=1, keepdim=True) for vectors in (one.double(), random_logits(6, 5, seed=1).double())
    ]
    expected = (lengths[0] - lengths[1]).square().sum(1)
    torch.testing.assert_close(
        losses.cosine_distance(one, random_logits(6, 5, seed=1)).double(), expected, rtol=1e-5, atol=1e-5
    )


def smooth_l1(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def structure(points: torch.Tensor) -> tuple[dict, dict]:
    """Return distances relative to their mean and cosines of angles, computed pair by pair."""
    count = range(len(points))
    distances = {(i, j): (points[i] - points[j]).norm().item() for i in count for j in count}
    mean = sum(distances.values()) / (len(points) * (len(points) - 1))
    angles = {
        (i, j, k): F.cosine_similarity(points[i] - points[j], points[k] - points[j], dim=0).item()
        for i in count
        for j in count
        for k in count
    }
    return {pair: distance / mean for pair, distance in distances.items()}, angles


def test_relations_are_their_definition():
    student, teacher = random_logits(5, 3), random_logits(5, 4, seed=1)
    expected = []
    for ours, theirs in zip(structure(student.double()), structure(teacher.double()), strict=True):
        expected.append(sum(smooth_l1(ours[key] - theirs[key]) for key in ours) / len(ours))
    actual = [value.item() for value in losses.relations(student, teacher)]
    assert actual == pytest.approx(expected, rel=1e-4)
    assert min(actual) > 1e-3


@pytest.mark.parametrize("scale", [0.01, 0.3, 30.0])
def test_relations_are_zero_for_a_rotated_and_scaled_copy(scale):
    teacher = random_logits(8, 5)
    rotation = torch.linalg.qr(random_logits(5, 5, seed=1)).Q
    for value in losses.relations(scale * (teacher @ rotation + 2.0), teacher):
        assert value.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("equal", [2, 6])
def test_relations_of_equal_embeddings_have_a_finite_and_moderate_gradient(equal):
    student = random_logits(6, 5)
    student[:equal] = student[0]
    student.requires_grad_()
    torch.stack(losses.relations(student, random_logits(6, 5, seed=1))).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 10


def test_logit_distance_is_the_mean_absolute_difference():
    student, teacher = random_logits(5, 7), random_logits(5, 7, seed=1)
    expected = (student.double() - teacher.double()).abs().sum(1) / 7
    torch.testing.assert_close(losses.logit_distance(student, teacher).double(), expected, rtol=1e-5, atol=1e-6)


def test_the_label_loss_is_cross_entropy_and_masked_where_the_teacher_predicts_another_class():
    student, teacher = random_logits(6, 4), random_logits(6, 4, seed=1)
    seen = teacher.argmax(1)
    labels = torch.where(torch.arange(6) < 3, seen, (seen + 1) % 4)
    expected = -student.double().log_softmax(1)[torch.arange(6), labels]
    torch.testing.assert_close(
        losses.label_loss(student, teacher, labels, mask=False).double(), expected, rtol=1e-5, atol=1e-6
    )
    masked = losses.label_loss(student, teacher, labels, mask=True)
    torch.testing.assert_close(masked[:3].double(), expected[:3], rtol=1e-5, atol=1e-6)
    assert masked[3:].tolist() == [0, 0, 0]
    assert losses.hits(teacher, labels).tolist() == [1, 1, 1, 0, 0, 0]
