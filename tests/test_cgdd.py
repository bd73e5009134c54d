"""What only the recipe cgdd does: labels preset and kept, terms that heed whether the teacher sees the class."""

import pytest
import torch
import torch.nn.functional as F
from test_methods import CLASSES, SIZE, make
from torch import nn

from dfkd_cli.distillation import losses
from dfkd_cli.errors import RecipeMismatchError
from dfkd_cli.methods import Batch
from dfkd_cli.methods.cgdd import Cgdd
from dfkd_cli.networks import EagerNetwork
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.synthesis.class_modulation import Conditioning
from dfkd_cli.synthesis.inversion import Inverted, equally


def cgdd(*more: str) -> Cgdd:
    method, _ = make("cgdd", *more)
    assert isinstance(method, Cgdd)
    return method


def made_with(logits: torch.Tensor, labels: torch.Tensor) -> Inverted:
    return Inverted(torch.rand(len(labels), *SIZE), labels, logits, None, {})


def test_the_store_holds_the_labels_that_were_asked_for_in_equal_shares():
    method = cgdd("options.generator.batch_size=12", "options.store_size=24")
    method.refresh(0.0)
    method.refresh(0.0)
    assert torch.equal(method.store.classes.bincount(minlength=CLASSES), torch.full((CLASSES,), 24 // CLASSES))
    batch = method.sample()
    assert batch.labels is not None
    assert batch.index is not None
    assert torch.equal(batch.labels, method.store.classes[batch.index])


def test_the_hit_rate_of_each_class_is_the_share_of_its_images_that_the_teacher_puts_there():
    seen, asked = torch.tensor([0, 0, 1, 0, 0]), torch.tensor([0, 0, 0, 1, 1])
    rates = cgdd()._renewed_hit_rates(made_with(F.one_hot(seen, CLASSES).float(), asked))
    torch.testing.assert_close(rates, torch.tensor([2 / 3, 0.0, 0.0]))


def test_a_class_without_an_image_in_this_batch_keeps_its_hit_rate():
    method = cgdd("options.generator.batch_size=2")
    batches = iter([([0, 1], [0, 1]), ([2, 0], [2, 2]), ([1, 1], [1, 0])])  # asked for and seen

    def renewed(objective, progress):
        asked, seen = map(torch.tensor, next(batches))
        return made_with(F.one_hot(seen, CLASSES).float(), asked)

    method.synthesizer.renew = renewed
    rates = [method.refresh(0.0)["synthesis/hit_rate_by_class"].tolist() for _ in range(3)]
    assert rates == [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.5, 1.0]]


def test_the_class_prior_fades_with_the_probability_and_ends_where_it_is_enough():
    logits, labels = (
        torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [6.0, 0.0, 0.0]]),
        torch.zeros(3, dtype=torch.int64),
    )
    p = logits.softmax(1)[:, 0]
    method = cgdd("options.gamma=2.0", "options.sure_enough=0.9")
    torch.testing.assert_close(method._modulation(logits, labels), (1 - p) ** 2 * torch.tensor([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("masked", [True, False])
def test_the_adversarial_term_counts_only_images_of_the_class_asked_for(masked):
    method = cgdd(f"options.on_class_only={str(masked).lower()}", "options.weights.adversarial=1.0")
    images = torch.rand(9, *SIZE)
    teacher, student = method.setting.predict(images)
    asked = teacher.argmax(1).clone()
    asked[:4] = (asked[:4] + 1) % CLASSES
    made = method.inversion(images, asked, equally, {})
    kl = losses.kl_div(student, teacher)
    expected = -(kl * (torch.arange(9) >= 4)).mean() if masked else -kl.mean()
    torch.testing.assert_close(made.terms["adversarial"], expected)


@pytest.mark.parametrize("masked", [True, False])
def test_the_label_term_can_leave_out_what_the_teacher_sees_differently(masked):
    method = cgdd(f"options.mask_labels={str(masked).lower()}", "options.label=2.0")
    images = torch.rand(9, *SIZE)
    teacher, student = method.setting.predict(images)
    labels = teacher.argmax(1).clone()
    labels[:4] = (labels[:4] + 1) % CLASSES
    terms, logged = method.student_loss(Batch(images, labels), 0.0)
    counted = torch.arange(9) >= (4 if masked else 0)
    expected = 2.0 * (F.cross_entropy(student, labels, reduction="none") * counted).mean()
    torch.testing.assert_close(terms["label"], expected)
    torch.testing.assert_close(logged["trusted"], torch.tensor(5 / 9))


@pytest.mark.parametrize(("switch", "term"), [("options.label=0", "label"), ("options.attention=0", "attention")])
def test_a_student_term_can_be_switched_off(switch, term):
    with_all, without = ({*make_terms(cgdd(*more))} for more in ((), (switch,)))
    assert with_all - without == {term}


def make_terms(method: Cgdd) -> dict[str, torch.Tensor]:
    method.refresh(0.0)
    return method.student_loss(method.sample(), 0.0)[0]


@pytest.mark.parametrize("conditioning", ["concat", "product", "batchnorm", "product_batchnorm"])
def test_every_conditioning_can_be_chosen_in_the_recipe(conditioning: Conditioning):
    method = cgdd(f"options.generator.conditioning={conditioning}")
    generator = method.synthesizer.generator
    assert (len(generator.modulations) > 0) == ("batchnorm" in conditioning)
    assert (generator.label_embedding is None) == (conditioning == "batchnorm")
    assert method.refresh(0.0)["synthesis/hit_rate_by_class"].shape == (CLASSES,)


def test_a_student_without_feature_maps_is_refused_before_anything_is_made():
    setting, options = cgdd().setting, cgdd().options
    flat = EagerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)))
    setting.student = Classifier(flat, setting.teacher.spec, setting.teacher.origin)
    with pytest.raises(RecipeMismatchError, match="feature maps in this student"):
        Cgdd(setting, options)
