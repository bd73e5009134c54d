"""The contract that every method keeps; a new one gets all of it by joining METHODS."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from noise_pool import noise_pool
from torch import nn

from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.machine.runtime import Runtime
from dfkd_cli.methods import METHODS
from dfkd_cli.networks.classifier import Classifier, InputSpec, Origin
from dfkd_cli.networks.eager import EagerNetwork
from dfkd_cli.recipe.recipe import Recipe, load_recipe
from dfkd_cli.training.augmentation import Augmentation
from dfkd_cli.training.clock import BudgetClock, StepClock
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.schedules import cosine, ramp
from dfkd_cli.training.setting import Setting

SIZE, CLASSES = (1, 8, 8), 3
TINY_GENERATOR = [
    "options.generator.batch_size=12",
    "options.generator.steps=2",
    "options.generator.width=16",
    "options.generator.noise_size=8",
    "options.warmup_rounds=2",
]
TINY = {
    "ssd": [*TINY_GENERATOR, "options.buffer_size=24"],
    "curriculum": [*TINY_GENERATOR],
    "csd": [*TINY_GENERATOR, "options.bank_size=24", "options.projection_width=4"],
    "cgdd": [*TINY_GENERATOR, "options.store_size=24"],
    "unlabeled": ["options.selection.keep=16", "options.embedding.relation_images=4", "options.kept_classes=2"],
}
GENERATIVE = [name for name, method in METHODS.items() if not method.needs.pool]


def tiny_classifier(seed: int, width: int, norm: bool = True, size: tuple[int, int, int] = SIZE) -> Classifier:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, width, 3), nn.BatchNorm2d(width) if norm else nn.Identity(), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, CLASSES))
    spec = InputSpec(size, mean=(0.4,), std=(0.3,), num_classes=CLASSES)
    return Classifier(EagerNetwork(module, input_size=size), spec, Origin("test", "test", None, None))


def tiny_recipe(name: str, *more: str) -> Recipe:
    small = ["train.steps=6", "train.batch_size=8", "train.round_every=2", "train.report_every=2"]
    return load_recipe(name, [*small, *TINY[name], *more])


def make(name: str, *more: str, norm: bool = True, seed: int = 0, size=SIZE) -> tuple[Any, Distillation]:
    recipe = tiny_recipe(name, *more)
    teacher = tiny_classifier(1, 8, norm, size).eval().requires_grad_(False)
    student = tiny_classifier(2, 4, size=size)
    setting = Setting(
        teacher,
        student,
        batch_size=recipe.train.batch_size,
        augmentation=Augmentation(flip=True, shift=0.125, mix=0.0, cut=0.0),
        runtime=Runtime(torch.device("cpu")),
        rng=torch.Generator().manual_seed(seed),
        pool=noise_pool() if METHODS[name].needs.pool else None,
    )
    torch.manual_seed(seed)
    method = METHODS[name](setting, recipe.options)
    return method, Distillation(method, setting, recipe.train, StepClock(recipe.train.steps))


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("norm", [True, False], ids=["batchnorm", "no batchnorm"])
@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_trains_the_student_and_leaves_the_teacher(self, name, norm):
        method, run = make(name, norm=norm)
        before = weights(method.setting.teacher), weights(method.setting.student)
        events = list(run.run())
        assert equal(before[0], weights(method.setting.teacher))
        assert not equal(before[1], weights(method.setting.student))
        assert events[-1].step == 6
        assert events[-1].progress == 1.0
        assert not method.setting.teacher.training

    def test_the_students_schedules_begin_with_its_training(self, name, norm):
        """Not with the budget, a share of which goes into the images before."""
        method, run = make(name, "train.lr_warmup=0.5", "train.round_every=1000", norm=norm)
        now, seen = [0.0], []
        run.clock = BudgetClock(20.0, now=lambda: now[0])
        refresh, loss, step = method.refresh, method.student_loss, run.optimizer.step

        def refreshing(progress):
            now[0] += 4.0
            return refresh(progress)

        def losing(batch, progress):
            seen.append((progress, run.optimizer.param_groups[0]["lr"]))
            return loss(batch, progress)

        def stepping():
            now[0] += 1.0
            step()

        method.refresh, method.student_loss = refreshing, losing
        run.optimizer.step = stepping  # pyright: ignore[reportAttributeAccessIssue]
        list(run.run())
        progress, rates = zip(*seen, strict=True)
        assert progress == pytest.approx([place / len(seen) for place in range(len(seen))])
        assert rates == pytest.approx([run.peaks[0] * cosine(share, 1.0) * ramp(share, 0.5) for share in progress])

    def test_the_same_seed_gives_the_same_student(self, name, norm):
        students = []
        for seed in (0, 0, 1):
            method, run = make(name, norm=norm, seed=seed)
            list(run.run())
            students.append(weights(method.setting.student))
        assert equal(students[0], students[1])
        assert not equal(students[0], students[2])

    def test_refreshing_leaves_the_student_alone(self, name, norm):
        method, run = make(name, norm=norm)
        before = weights(method.setting.student)
        while not method.ready(0.0):
            run._refresh(0.0)
        run._refresh(0.5)
        assert equal(before, weights(method.setting.student))
        assert all(parameter.grad is None for parameter in method.setting.student.parameters())
        assert method.setting.student.training

    def test_tells_how_often_it_refreshes_before_the_first_step(self, name, norm):
        method, run = make(name, norm=norm)
        told, rounds = method.filling().rounds, 0
        while not method.ready(0.0):
            run._refresh(0.0)
            rounds += 1
        assert rounds == told

    def test_shows_images_in_the_unit_range(self, name, norm):
        method, run = make(name, norm=norm)
        list(run.run())
        for images in (method.sample().images, method.fresh_images(10), method.shown_images(10)):
            assert images.shape[1:] == SIZE
            assert images.min() >= 0
            assert images.max() <= 1
        assert len(method.fresh_images(10)) == 10
        assert method.counts().generated >= method.counts().kept > 0

    def test_every_logged_value_is_finite_and_every_student_term_is_there(self, name, norm):
        _, run = make(name, norm=norm)
        metrics = list(run.run())[-1].metrics
        assert {"loss", "agreement", "images/generated", "images/kept"} <= metrics.keys()
        assert all(torch.tensor(value).isfinite().all() for value in metrics.values())

    def test_a_restored_run_ends_bit_for_bit_the_same(self, name, norm):
        method, run = make(name, norm=norm)
        events = run.run()
        next(event for event in events if event.step >= 2)
        state = copy.deepcopy(run.state_dict())
        list(events)
        other, resumed = make(name, norm=norm, seed=5)
        resumed.load_state_dict(state)
        list(resumed.run())
        assert equal(weights(method.setting.student), weights(other.setting.student))

    def test_the_student_terms_reach_the_student(self, name, norm):
        method, run = make(name, norm=norm)
        while not method.ready(0.0):
            run._refresh(0.0)
        method.setting.student.train()
        terms, _ = method.student_loss(method.sample(), 0.5)  # where no term is still being faded in
        for term, value in terms.items():
            parameters = list(method.setting.student.parameters())  # a term on features passes the classifier by
            grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            assert max(grad.abs().max() for grad in grads) > 1e-8, term


TERMS = ("bn", "class_prior", "adversarial", "balance", "activation", "total_variation")
NO_WEIGHTS = [f"options.{section}.{term}=0" for section in ("weights", "weights_without_batchnorm") for term in TERMS]


@pytest.mark.parametrize("norm", [True, False], ids=["batchnorm", "no batchnorm"])
@pytest.mark.parametrize("name", GENERATIVE)
def test_a_generator_may_have_only_an_adversary_but_not_nothing(name, norm):
    only = [f"options.{section}.adversarial=1" for section in ("weights", "weights_without_batchnorm")]
    _, run = make(name, *NO_WEIGHTS, *only, norm=norm)
    assert list(run.run())[-1].step == 6
    with pytest.raises(UsageError, match="nothing to learn from test"):
        make(name, *NO_WEIGHTS, norm=norm)
    with pytest.raises(UsageError, match="nothing to learn from test"):
        make(name, *NO_WEIGHTS, "options.weights_without_batchnorm.bn=1", norm=False)


ALL_WEIGHTS = [
    f"options.{section}.{term}=1.0" for section in ("weights", "weights_without_batchnorm") for term in TERMS
]


@pytest.mark.parametrize("name", GENERATIVE)
class TestWarmingUpOnABudget:
    """A share of 0.1; what compiling takes is part of the first round."""

    def warming(self, name: str) -> tuple[Any, Distillation]:
        return make(name, "options.warmup_rounds=50", "options.warmup_share=0.1")

    def test_the_first_round_does_not_count(self, name):
        method, run = self.warming(name)
        run._refresh(0.0)
        assert not method.ready(0.08)
        run._refresh(0.08)
        assert not method.ready(0.17)
        restored, _ = self.warming(name)
        restored.load_state_dict(copy.deepcopy(method.state_dict()))
        for each in (method, restored):
            assert not each.ready(0.17)
            assert each.ready(0.19)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_something_is_left_for_the_student(self, name, share):
        method, run = make(name, "options.warmup_rounds=50", f"options.warmup_share={share}")
        for progress in (0.0, 0.95):  # a long first round
            run._refresh(progress)
        assert method.ready(0.995)

    def test_unless_it_took_long_itself(self, name):
        method, run = self.warming(name)
        assert not method.ready(0.5), "one round there is"
        run._refresh(0.0)
        assert method.ready(0.21)
        assert not method.ready(0.15)
        run._refresh(0.15)
        assert method.ready(0.21)


@pytest.mark.parametrize("norm", [True, False], ids=["batchnorm", "no batchnorm"])
@pytest.mark.parametrize("name", GENERATIVE)
def test_every_generator_term_moves_the_images(name, norm):
    """A term whose gradient is zero is a term that is not there: a wrong network, a stray detach."""
    method, run = make(name, *ALL_WEIGHTS, norm=norm)
    while not method.ready(0.0):
        run._refresh(0.0)
    images = torch.rand(12, *SIZE, requires_grad=True)
    labels = torch.arange(12) % CLASSES
    made = method.inversion(images, labels, lambda logits, _: torch.ones(len(logits)), {})
    expected = {"class_prior", "adversarial", "balance", "activation", "total_variation"} | ({"bn"} if norm else set())
    assert made.terms.keys() == expected
    for term, value in made.terms.items():
        (gradient,) = torch.autograd.grad(value, images, retain_graph=True)
        assert gradient.abs().max() > 1e-8, term


@pytest.mark.parametrize("name", GENERATIVE)
def test_the_bn_weight_falls_to_its_share_in_a_straight_line(name):
    method, run = make(name, "options.weights.bn=2.0", "options.bn_final=0.5")
    run._refresh(0.0)
    method.setting.student.eval()
    images, equally = torch.rand(12, *SIZE), lambda logits, _: torch.ones(len(logits))

    def terms(progress):
        return method.inverted(images, None, equally, 1.0, progress).terms

    start, middle, end = (terms(progress) for progress in (0.0, 0.5, 1.0))
    torch.testing.assert_close(end["bn"], start["bn"] / 2)
    torch.testing.assert_close(middle["bn"], start["bn"] * 0.75)
    for term in start.keys() - {"bn"}:
        torch.testing.assert_close(end[term], start[term])


def test_a_share_of_a_term_that_does_not_exist_is_a_bug():
    method, _ = make("ssd")
    with pytest.raises(KeyError):
        method.inversion(torch.rand(12, *SIZE), None, lambda logits, _: torch.ones(len(logits)), {"adverserial": 0.5})


@pytest.mark.parametrize(
    ("switch", "metric"),
    [("options.priority=false", "uniform"), ("options.importance=false", "weights")],
)
def test_a_component_of_ssd_can_be_switched_off(switch, metric):
    method, run = make("ssd", "options.priority=true", switch)
    list(run.run())
    buffer = method.buffer
    if metric == "uniform":
        chances = buffer.probabilities(method.alpha)
        torch.testing.assert_close(chances, torch.full_like(chances, 1 / len(buffer)))
    else:
        assert torch.equal(buffer.weights, torch.ones_like(buffer.weights))


@pytest.mark.parametrize("off", ["explicit", "distance", "angle"])
def test_a_term_of_unlabeled_without_a_weight_is_left_out(off):
    method, run = make("unlabeled", f"options.embedding.{off}=0")
    while not method.ready(0.0):
        run._refresh(0.0)
    terms, _ = method.student_loss(method.sample(), 0.5)
    assert terms.keys() == {"kd", "explicit", "distance", "angle"} - {off}


def test_unlabeled_learns_from_predictions_alone_where_the_embedding_cannot_be_seen(monkeypatch):
    """As with a teacher that does not end in a linear layer."""
    observe = EagerNetwork.observe
    monkeypatch.setattr(EagerNetwork, "observe", lambda self, inputs: observe(self, inputs)._replace(embedding=None))
    _, run = make("unlabeled")
    metrics = list(run.run())[-1].metrics
    assert "kd" in metrics
    assert "explicit" not in metrics
    assert any("embedding cannot be seen" in note for note in run.notes())


def test_a_selection_that_was_interrupted_is_made_anew():
    method, run = make("unlabeled", "options.selection.score=random")
    run._refresh(0.0)
    state = copy.deepcopy(run.state_dict())
    list(run.run())
    other, resumed = make("unlabeled", "options.selection.score=random")
    resumed.load_state_dict(state)
    list(resumed.run())
    assert method.files() == other.files()
    assert equal(weights(method.setting.student), weights(other.setting.student))


def test_a_loss_that_is_not_finite_ends_the_run_with_one_line():
    _, run = make("ssd", "train.lr=1e30")
    with pytest.raises(DfkdError, match="not finite"):
        list(run.run())


def test_the_loop_knows_no_method():
    text = Path("dfkd_cli/training/engine.py").read_text()
    assert not any(name in text for name in (*METHODS, "Ssd"))


def test_a_resumed_run_has_its_share_of_what_is_left_for_reading_the_pool():
    method, run = make("unlabeled", "options.selection.reading_share=0.5")
    for progress in (0.6, 0.62):
        run._refresh(progress)
    while not method.ready(0.7):
        run._refresh(0.7)
    assert method.selected.complete
    late, run = make("unlabeled", "options.selection.reading_share=0.5")
    for progress in (0.5, 0.6, 0.81):  # the first chunk is there at 0.6
        run._refresh(progress)
    assert late.ready(0.81)
    assert not late.selected.complete
