"""`cgdd`: requested labels are stored, and terms depend on whether the teacher predicts them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_methods import CLASSES, SIZE, generator_loss, make, tiny_recipe
from torch import nn

from dfkd_cli.errors import RecipeMismatchError
from dfkd_cli.methods.cgdd import CGDD, HitRates, modulation
from dfkd_cli.networks import EagerNetwork
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.synthesis.class_modulation import Conditioning
from dfkd_cli.synthesis.generator_loss import Generated
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.method import Batch


def cgdd(*more: str) -> Any:
    return make("cgdd", *more)


def made_with(logits: torch.Tensor, labels: torch.Tensor) -> Generated:
    return Generated(torch.rand(len(labels), *SIZE), labels, logits, None, {})


def test_the_store_holds_the_requested_labels_in_equal_shares():
    loop = cgdd("options.generator.batch_size=12", "options.store.size=24")
    loop.round(0.0)
    loop.round(0.0)
    assert torch.equal(
        loop.method.source.memory.classes.bincount(minlength=CLASSES), torch.full((CLASSES,), 24 // CLASSES)
    )
    batch = loop.method.source.sample()
    assert batch.labels is not None
    assert batch.index is not None
    assert torch.equal(batch.labels, loop.method.source.memory.classes[batch.index])


def test_the_hit_rate_of_each_class_is_the_share_of_its_images_that_the_teacher_puts_there():
    seen, asked = torch.tensor([0, 0, 1, 0, 0]), torch.tensor([0, 0, 0, 1, 1])
    rates = HitRates(CLASSES, torch.device("cpu"))(made_with(F.one_hot(seen, CLASSES).float(), asked))
    torch.testing.assert_close(rates["synthesis/hit_rate_by_class"], torch.tensor([2 / 3, 0.0, 0.0]))


def test_a_class_without_an_image_in_this_batch_keeps_its_hit_rate():
    measure = HitRates(CLASSES, torch.device("cpu"))
    rates = []
    for asked, seen in [([0, 1], [0, 1]), ([2, 0], [2, 2]), ([1, 1], [1, 0])]:
        logits = F.one_hot(torch.tensor(seen), CLASSES).float()
        rates.append(measure(made_with(logits, torch.tensor(asked)))["synthesis/hit_rate_by_class"].tolist())
    assert rates == [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.5, 1.0]]
    resumed = HitRates(CLASSES, torch.device("cpu"))
    resumed.load_state_dict(measure.state_dict())
    assert resumed.rates.tolist() == rates[-1]


def test_the_class_prior_fades_with_the_probability_and_ends_where_it_is_enough():
    logits, labels = (
        torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [6.0, 0.0, 0.0]]),
        torch.zeros(3, dtype=torch.int64),
    )
    p = logits.softmax(1)[:, 0]
    options = tiny_recipe("cgdd", "options.gamma=2.0", "options.sure_enough=0.9").options
    torch.testing.assert_close(modulation(options, logits, labels), (1 - p) ** 2 * torch.tensor([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("masked", [True, False])
def test_the_adversarial_term_counts_only_images_of_the_requested_class(masked):
    loop = cgdd(f"options.on_class_only={str(masked).lower()}", "options.inversion.weights.adversarial=1.0")
    images = torch.rand(9, *SIZE)
    teacher, student = loop.setting.predict(images)
    asked = teacher.argmax(1).clone()
    asked[:4] = (asked[:4] + 1) % CLASSES
    made = generator_loss(loop)(images, asked, 0.0, warm=True)
    kl = losses.kl_div(student, teacher)
    expected = -(kl * (torch.arange(9) >= 4)).mean() if masked else -kl.mean()
    torch.testing.assert_close(made.terms["adversarial"], expected)


@pytest.mark.parametrize("masked", [True, False])
def test_the_label_term_can_leave_out_images_of_another_class(masked):
    loop = cgdd(f"options.labels.mask={str(masked).lower()}", "options.labels.weight=2.0")
    images = torch.rand(9, *SIZE)
    teacher, student = loop.setting.predict(images)
    labels = teacher.argmax(1).clone()
    labels[:4] = (labels[:4] + 1) % CLASSES
    terms, logged, _ = loop.method.loss.compute(Batch(images, labels), 0.0)
    counted = torch.arange(9) >= (4 if masked else 0)
    expected = 2.0 * (F.cross_entropy(student, labels, reduction="none") * counted).mean()
    torch.testing.assert_close(terms["label"], expected)
    torch.testing.assert_close(logged["trusted"], torch.tensor(5 / 9))


@pytest.mark.parametrize(("section", "term"), [("labels", "label"), ("attention", "attention")])
def test_a_student_term_can_be_switched_off(section, term):
    with_all, without = ({*make_terms(cgdd(*more))} for more in ((), (f"options.{section}.weight=0",)))
    assert with_all - without == {term}


def make_terms(loop: Any) -> dict[str, torch.Tensor]:
    loop.round(0.0)
    return loop.method.loss.compute(loop.method.source.sample(), 0.0).terms


@pytest.mark.parametrize("conditioning", ["concat", "product", "batchnorm", "product_batchnorm"])
def test_every_conditioning_can_be_chosen_in_the_recipe(conditioning: Conditioning):
    loop = cgdd(f"options.generator.conditioning={conditioning}")
    generator = loop.method.source.trainer.generator
    assert (len(generator.modulations) > 0) == ("batchnorm" in conditioning)
    assert (generator.label_embedding is None) == (conditioning == "batchnorm")
    assert loop.round(0.0)["synthesis/hit_rate_by_class"].shape == (CLASSES,)


def test_a_student_without_feature_maps_is_refused_at_once():
    setting, options = cgdd().setting, tiny_recipe("cgdd").options
    flat = EagerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)))
    setting.student = Classifier(flat, setting.teacher.spec, setting.teacher.origin)
    with pytest.raises(RecipeMismatchError, match="feature maps of the student"):
        CGDD.build(setting, options)
