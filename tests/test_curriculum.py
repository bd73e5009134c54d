"""What is `curriculum`'s own: the ramp of the adversary, the pacing of the loss, and images that come only once."""

import pytest
import torch
from test_methods import make

from dfkd_cli.distillation import losses
from dfkd_cli.distillation.self_paced import self_paced_weight


def refreshed(method, run, progress: float) -> dict[str, torch.Tensor]:
    run._refresh(0.0)  # the first one never has an adversary
    return run._refresh(progress)


def test_the_adversary_grows_with_the_progress():
    method, run = make(
        "curriculum", "options.ramp_begin=0.2", "options.ramp_end=0.8", "options.weights.adversarial=3.0"
    )
    shares = [refreshed(method, run, progress)["curriculum/adversarial"].item() for progress in (0.1, 0.5, 0.9)]
    assert shares == pytest.approx([0.0, 0.5, 1.0])
    assert "synthesis/adversarial" not in refreshed(method, run, 0.1)
    assert "synthesis/adversarial" in refreshed(method, run, 0.9)


def test_a_student_that_has_not_begun_has_no_say():
    _, run = make("curriculum", "options.warmup_rounds=3", "options.warmup_share=1", "options.adversarial_start=0.5")
    shares = [run._refresh(0.3)["curriculum/adversarial"].item() for _ in range(4)]
    assert shares[:3] == [0.0, 0.0, 0.0]
    assert shares[3] > 0.5


def test_the_adversarial_term_has_the_size_the_ramp_says():
    method, run = make("curriculum")
    run._refresh(0.0)
    method.setting.student.eval()
    images, ones = torch.rand(12, 1, 8, 8), lambda logits, _: torch.ones(len(logits))
    half, whole = (
        method.inversion(images, None, ones, {"adversarial": share}).terms["adversarial"] for share in (0.5, 1.0)
    )
    torch.testing.assert_close(2 * half, whole)


@pytest.mark.parametrize("level", ["sample", "batch"])
@pytest.mark.parametrize("divergence", ["l1", "kl"])
def test_the_loss_is_the_divergence_times_its_weight(level, divergence):
    method, run = make(
        "curriculum",
        f"options.pacing_level={level}",
        f"options.divergence={divergence}",
        "options.temperature=4",
        "options.lambda_start=0.01",
        "options.lambda_end=0.05",
        "options.relative_difficulty=false",
    )
    run._refresh(0.0)
    method.setting.student.eval()  # the same answer twice
    batch = method.sample()
    terms, logged = method.student_loss(batch, 0.5)
    teacher, student = method.setting.predict(batch.images)
    each = (student - teacher).abs().mean(dim=1) if divergence == "l1" else losses.kl_div(student, teacher, 4.0)
    each = each if level == "sample" else each.mean()
    torch.testing.assert_close(terms["kd"], (self_paced_weight(each, 0.03, "log") * each).mean())
    assert logged["curriculum/lambda"].item() == pytest.approx(0.03)
    assert 0 < logged["curriculum/weight"] < 1


def test_every_step_sees_new_images_and_they_are_counted():
    method, run = make("curriculum")
    run._refresh(0.0)
    before = method.counts().generated
    first, second = method.sample().images, method.sample().images
    assert not torch.equal(first, second)
    assert method.counts().generated == before + len(first) + len(second)


def test_sampling_leaves_the_generator_alone():
    method, run = make("curriculum")
    run._refresh(0.0)
    before = {name: value.clone() for name, value in method.synthesizer.generator.state_dict().items()}
    method.sample()
    assert all(torch.equal(value, before[name]) for name, value in method.synthesizer.generator.state_dict().items())


@pytest.mark.parametrize("divergence", ["l1", "kl"])
def test_relative_difficulty_does_not_depend_on_the_size_of_the_logits(divergence):
    method, run = make("curriculum", f"options.divergence={divergence}", "options.temperature=100")
    run._refresh(0.0)
    batch = method.sample()
    teacher, student = torch.randn(2, 8, 3)
    logged = []
    for scale in (1.0, 5.0):
        method.setting.predict = lambda images, scale=scale: (scale * teacher, (scale * student).requires_grad_())
        logged.append(method.student_loss(batch, 0.3)[1])
    torch.testing.assert_close(
        logged[0]["curriculum/difficulty"], logged[1]["curriculum/difficulty"], rtol=0.05, atol=0
    )
    torch.testing.assert_close(logged[0]["curriculum/weight"], logged[1]["curriculum/weight"], rtol=0.05, atol=0)


def test_a_student_that_knows_nothing_has_difficulty_one():
    method, run = make("curriculum")
    run._refresh(0.0)
    method.setting.predict = lambda images: (torch.ones(8, 3).cumsum(1), torch.zeros(8, 3, requires_grad=True))
    assert method.student_loss(method.sample(), 0.3)[1]["curriculum/difficulty"].item() == pytest.approx(1.0)
