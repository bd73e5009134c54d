"""`curriculum`: the ramp of the adversarial term, the pacing of the loss, and images that are used only once."""

import pytest
import torch
from tiny_methods import generator_loss, make, warm, weights

from dfkd_cli.training.distillation import losses
from dfkd_cli.training.distillation.self_paced import self_paced_weight


def renewed(loop, progress: float) -> dict[str, torch.Tensor]:
    loop.round(0.0)  # the first round has no adversarial term
    return loop.round(progress)


def test_the_adversarial_term_grows_with_the_progress():
    loop = make(
        "curriculum", "options.ramp_begin=0.2", "options.ramp_end=0.8", "options.inversion.weights.adversarial=3.0"
    )
    shares = [renewed(loop, progress)["synthesis/adversarial_share"].item() for progress in (0.1, 0.5, 0.9)]
    assert shares == pytest.approx([0.0, 0.5, 1.0])
    assert "synthesis/adversarial" not in renewed(loop, 0.1)
    assert "synthesis/adversarial" in renewed(loop, 0.9)


def test_there_is_no_adversarial_term_before_the_first_student_step():
    loop = make("curriculum", "options.warmup.rounds=3", "options.warmup.share=1", "options.adversarial_start=0.5")
    shares = [loop.round(0.3)["synthesis/adversarial_share"].item() for _ in range(4)]
    assert shares[:3] == [0.0, 0.0, 0.0]
    assert shares[3] > 0.5


def test_the_adversarial_term_has_the_size_of_the_ramp():
    loop = warm(make("curriculum", "options.ramp_begin=0", "options.ramp_end=0.8"))
    loop.setting.student.eval()
    images = torch.rand(12, 1, 8, 8)
    half, whole = (generator_loss(loop)(images, None, at, warm=True).terms["adversarial"] for at in (0.4, 0.8))
    torch.testing.assert_close(2 * half, whole)


@pytest.mark.parametrize("level", ["sample", "batch"])
@pytest.mark.parametrize("divergence", ["l1", "kl"])
def test_the_loss_is_the_divergence_times_its_weight(level, divergence):
    loop = make(
        "curriculum",
        f"options.pacing_level={level}",
        f"options.divergence={divergence}",
        "options.temperature=4",
        "options.lambda_start=0.01",
        "options.lambda_end=0.05",
        "options.relative_difficulty=false",
    )
    loop.round(0.0)
    loop.setting.student.eval()  # deterministic predictions
    batch = loop.method.source.sample()
    terms, logged, _ = loop.method.loss.compute(batch, 0.5)
    teacher, student = loop.setting.predict(batch.images)
    each = (student - teacher).abs().mean(dim=1) if divergence == "l1" else losses.kl_div(student, teacher, 4.0)
    each = each if level == "sample" else each.mean()
    torch.testing.assert_close(terms["kd"], (self_paced_weight(each, 0.03, "log") * each).mean())
    assert logged["curriculum/lambda"].item() == pytest.approx(0.03)
    assert 0 < logged["curriculum/weight"] < 1


def test_every_step_has_new_images_which_are_counted():
    loop = make("curriculum")
    loop.round(0.0)
    before = loop.method.source.counts().generated
    first, second = loop.method.source.sample().images, loop.method.source.sample().images
    assert not torch.equal(first, second)
    assert loop.method.source.counts().generated == before + len(first) + len(second)


def test_sampling_leaves_the_generator_alone():
    loop = make("curriculum")
    loop.round(0.0)
    generator = loop.method.source.trainer.generator
    before = weights(generator)
    loop.method.source.sample()
    assert all(
        torch.equal(value, before[name]) for name, value in loop.method.source.trainer.generator.state_dict().items()
    )


@pytest.mark.parametrize("divergence", ["l1", "kl"])
def test_relative_difficulty_does_not_depend_on_the_size_of_the_logits(divergence):
    loop = make("curriculum", f"options.divergence={divergence}", "options.temperature=100")
    loop.round(0.0)
    batch = loop.method.source.sample()
    teacher, student = torch.randn(2, 8, 3)
    logged = []
    for scale in (1.0, 5.0):
        loop.setting.predict = lambda images, scale=scale: (scale * teacher, (scale * student).requires_grad_())
        logged.append(loop.method.loss.compute(batch, 0.3)[1])
    torch.testing.assert_close(
        logged[0]["curriculum/difficulty"], logged[1]["curriculum/difficulty"], rtol=0.05, atol=0
    )
    torch.testing.assert_close(logged[0]["curriculum/weight"], logged[1]["curriculum/weight"], rtol=0.05, atol=0)


def test_uniform_predictions_have_difficulty_one():
    loop = make("curriculum")
    loop.round(0.0)
    loop.setting.predict = lambda images: (torch.ones(8, 3).cumsum(1), torch.zeros(8, 3, requires_grad=True))
    assert loop.method.loss.compute(loop.method.source.sample(), 0.3)[1][
        "curriculum/difficulty"
    ].item() == pytest.approx(1.0)
