"""The contract of all methods. Its tests run for every entry of METHODS."""

import copy

import pytest
import torch
from tiny_methods import (
    CLASSES,
    GENERATIVE,
    SIZE,
    equal,
    generator_loss,
    make,
    option_names,
    warm,
    weight_options,
    weights,
)

from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.methods import METHODS
from dfkd_cli.networks.eager import EagerNetwork
from dfkd_cli.training.clock import BudgetClock
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.schedules import cosine, ramp


@pytest.mark.parametrize("norm", [True, False], ids=["batchnorm", "no batchnorm"])
@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_trains_the_student_and_leaves_the_teacher(self, name, norm):
        loop = make(name, norm=norm)
        before = weights(loop.setting.teacher), weights(loop.setting.student)
        events = list(loop.events())
        assert equal(before[0], weights(loop.setting.teacher))
        assert not equal(before[1], weights(loop.setting.student))
        assert events[-1].step == 6
        assert events[-1].progress == 1.0
        assert not loop.setting.teacher.training

    def test_the_students_schedules_begin_with_its_training(self, name, norm):
        """A budget also contains the warm-up, so its progress does not start at 0 with the first step."""
        loop = make(name, "train.lr_warmup=0.5", "train.round_every=1000", norm=norm)
        now, seen = [0.0], []
        loop.clock = BudgetClock(20.0, now=lambda: now[0])
        source, loss = loop.method.source, loop.method.loss
        renew, compute, step = source.round, loss.compute, loop.optimizer.step

        def renewing(progress):
            now[0] += 4.0
            return renew(progress)

        def losing(batch, progress):
            seen.append((progress, loop.optimizer.param_groups[0]["lr"]))
            return compute(batch, progress)

        def stepping():
            now[0] += 1.0
            step()

        source.round, loss.compute = renewing, losing
        loop.optimizer.step = stepping
        list(loop.events())
        progress, rates = zip(*seen, strict=True)
        assert progress == pytest.approx([place / len(seen) for place in range(len(seen))])
        assert rates == pytest.approx([loop.peaks[0] * cosine(share, 1.0) * ramp(share, 0.5) for share in progress])

    def test_the_same_seed_gives_the_same_student(self, name, norm):
        students = []
        for seed in (0, 0, 1):
            loop = make(name, norm=norm, seed=seed)
            list(loop.events())
            students.append(weights(loop.setting.student))
        assert equal(students[0], students[1])
        assert not equal(students[0], students[2])

    def test_a_round_leaves_the_student_alone(self, name, norm):
        loop = make(name, norm=norm)
        before = weights(loop.setting.student)
        while not loop.method.source.ready(0.0):
            loop.round(0.0)
        loop.round(0.5)
        assert equal(before, weights(loop.setting.student))
        assert all(parameter.grad is None for parameter in loop.setting.student.parameters())
        assert loop.setting.student.training

    def test_the_warm_up_has_as_many_rounds_as_planned(self, name, norm):
        loop = make(name, norm=norm)
        told, rounds = loop.method.source.warmup().rounds, 0
        while not loop.method.source.ready(0.0):
            loop.round(0.0)
            rounds += 1
        assert rounds == told

    def test_shows_images_in_the_unit_range(self, name, norm):
        loop = make(name, norm=norm)
        list(loop.events())
        for images in (loop.method.source.sample().images, loop.method.source.fresh(10), loop.method.source.shown(10)):
            assert images.shape[1:] == SIZE
            assert images.min() >= 0
            assert images.max() <= 1
        assert len(loop.method.source.fresh(10)) == 10
        assert loop.method.source.counts().generated >= loop.method.source.counts().kept > 0

    def test_every_logged_value_is_finite_and_every_student_term_is_there(self, name, norm):
        loop = make(name, norm=norm)
        metrics = list(loop.events())[-1].metrics
        assert {"loss", "agreement", "images/generated", "images/kept"} <= metrics.keys()
        assert all(torch.tensor(value).isfinite().all() for value in metrics.values())

    def test_a_restored_run_ends_bit_for_bit_the_same(self, name, norm):
        loop = make(name, norm=norm)
        events = loop.events()
        next(event for event in events if event.step >= 2)
        state = copy.deepcopy(loop.state_dict())
        list(events)
        resumed = make(name, norm=norm, seed=5)
        resumed.load_state_dict(state)
        list(resumed.events())
        assert equal(weights(loop.setting.student), weights(resumed.setting.student))

    def test_the_student_terms_reach_the_student(self, name, norm):
        loop = warm(make(name, norm=norm))
        loop.setting.student.train()
        # At progress 0.5 every term has its full weight.
        terms, _, _ = loop.method.loss.compute(loop.method.source.sample(), 0.5)
        for term, value in terms.items():
            parameters = list(loop.setting.student.parameters())  # a term of features has no gradient in the classifier
            grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            assert max(grad.abs().max() for grad in grads) > 1e-8, term


def of_all(name: str, ending: str, value: float) -> list[str]:
    return [f"{option}={value}" for option in option_names(name) if option.endswith(ending)]


@pytest.mark.parametrize("norm", [True, False], ids=["batchnorm", "no batchnorm"])
@pytest.mark.parametrize("name", GENERATIVE)
def test_a_generator_without_a_term_is_refused(name, norm):
    nothing = [*weight_options(name, 0), *of_all(name, "reward.weight", 0)]
    with pytest.raises(UsageError, match="no term for test"):
        make(name, *nothing, norm=norm)
    with pytest.raises(UsageError, match="no term for test"):
        make(name, *nothing, *of_all(name, "weights_without_batchnorm.bn", 1), norm=False)


@pytest.mark.parametrize("norm", [True, False], ids=["batchnorm", "no batchnorm"])
@pytest.mark.parametrize("name", [name for name in GENERATIVE if of_all(name, ".adversarial", 1)])
def test_a_generator_may_have_only_the_adversarial_term(name, norm):
    loop = make(name, *weight_options(name, 0), *of_all(name, ".adversarial", 1), norm=norm)
    assert list(loop.events())[-1].step == 6


@pytest.mark.parametrize("name", GENERATIVE)
class TestWarmingUpOnABudget:
    """The share of the budget is 0.1, counted from the end of the first round, which includes compilation."""

    def warming(self, name: str) -> Distillation:
        return make(name, "options.warmup.rounds=50", "options.warmup.share=0.1")

    def test_the_first_round_does_not_count(self, name):
        loop = self.warming(name)
        loop.round(0.0)
        assert not loop.method.source.ready(0.08)
        loop.round(0.08)
        assert not loop.method.source.ready(0.17)
        restored = self.warming(name)
        restored.method.load_state_dict(copy.deepcopy(loop.method.state_dict()))
        for each in (loop, restored):
            assert not each.method.source.ready(0.17)
            assert each.method.source.ready(0.19)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_something_is_left_for_the_student(self, name, share):
        loop = make(name, "options.warmup.rounds=50", f"options.warmup.share={share}")
        for progress in (0.0, 0.95):  # a long first round
            loop.round(progress)
        assert loop.method.source.ready(0.995)

    def test_a_first_round_longer_than_the_share_counts(self, name):
        loop = self.warming(name)
        assert not loop.method.source.ready(0.5), "there is at least one round"
        loop.round(0.0)
        assert loop.method.source.ready(0.21)
        assert not loop.method.source.ready(0.15)
        loop.round(0.15)
        assert loop.method.source.ready(0.21)


@pytest.mark.parametrize("norm", [True, False], ids=["batchnorm", "no batchnorm"])
@pytest.mark.parametrize("name", GENERATIVE)
def test_every_generator_term_moves_the_images(name, norm):
    """A term without a gradient has no effect; causes are a wrong network or a stray detach."""
    loop = warm(make(name, *weight_options(name, 1), norm=norm))
    loop.student_step(0.5)  # some terms are active only after it
    loss = generator_loss(loop)
    images = torch.rand(12, *SIZE, requires_grad=True)
    loop.setting.student.eval()
    made = loss(images, torch.arange(12) % CLASSES, 1.0, warm=True)
    section = "weights" if norm or not of_all(name, "weights_without_batchnorm.bn", 1) else "weights_without_batchnorm"
    named = {option.rpartition(".")[2] for option in option_names(name) if f".{section}." in option}
    assert named - made.terms.keys() == (set() if norm else named & {"bn"})
    assert made.terms.keys() == {term.name for term in loss.terms}
    for term, value in made.terms.items():
        (gradient,) = torch.autograd.grad(value, images, retain_graph=True)
        assert gradient.abs().max() > 1e-8, term


@pytest.mark.parametrize("name", [name for name in GENERATIVE if of_all(name, ".bn_final", 1)])
def test_the_bn_weight_falls_to_its_share_in_a_straight_line(name):
    loop = make(name, *of_all(name, ".weights.bn", 2), *of_all(name, ".bn_final", 0.5), *of_all(name, "ramp_end", 0))
    loop.round(0.0)
    loop.setting.student.eval()
    images = torch.rand(12, *SIZE)
    start, middle, end = (generator_loss(loop)(images, None, at, warm=True).terms for at in (0.0, 0.5, 1.0))
    torch.testing.assert_close(end["bn"], start["bn"] / 2)
    torch.testing.assert_close(middle["bn"], start["bn"] * 0.75)
    assert start.keys() - {"bn"}
    for term in start.keys() & end.keys() - {"bn"}:
        torch.testing.assert_close(end[term], middle[term])


@pytest.mark.parametrize("name", GENERATIVE)
def test_terms_that_need_the_student_are_inactive_before_its_first_step(name):
    loop = make(name, *weight_options(name, 1))
    waiting = {term.name for term in generator_loss(loop).terms if term.needs_student}
    logged = {key.removeprefix("synthesis/") for key in loop.round(0.0)}
    assert not waiting & logged
    warm(loop)
    loop.student_step(0.5)
    assert waiting <= {key.removeprefix("synthesis/") for key in loop.round(1.0)}


@pytest.mark.parametrize(
    ("switch", "metric"),
    [("options.priority=false", "uniform"), ("options.importance=false", "weights")],
)
def test_a_component_of_ssd_can_be_switched_off(switch, metric):
    loop = make("ssd", "options.priority=true", switch)
    list(loop.events())
    buffer = loop.method.source.memory
    if metric == "uniform":
        chances = buffer.probabilities()
        torch.testing.assert_close(chances, torch.full_like(chances, 1 / len(buffer)))
    else:
        assert torch.equal(buffer.weights, torch.ones_like(buffer.weights))


@pytest.mark.parametrize("off", ["explicit", "distance", "angle"])
def test_a_term_of_unlabeled_without_a_weight_is_left_out(off):
    loop = warm(make("unlabeled", f"options.embedding.{off}=0"))
    terms, _, _ = loop.method.loss.compute(loop.method.source.sample(), 0.5)
    assert terms.keys() == {"kd", "explicit", "distance", "angle"} - {off}


def test_unlabeled_has_only_the_kd_term_without_a_visible_embedding(monkeypatch):
    """A teacher that does not end in a linear layer has no visible embedding."""
    observe = EagerNetwork.observe
    monkeypatch.setattr(EagerNetwork, "observe", lambda self, inputs: observe(self, inputs)._replace(embedding=None))
    loop = make("unlabeled")
    metrics = list(loop.events())[-1].metrics
    assert "kd" in metrics
    assert "explicit" not in metrics
    assert any("embedding is not visible" in note for note in loop.notes())


def test_an_interrupted_selection_is_repeated():
    loop = make("unlabeled", "options.selection.score=random")
    loop.round(0.0)
    state = copy.deepcopy(loop.state_dict())
    list(loop.events())
    resumed = make("unlabeled", "options.selection.score=random")
    resumed.load_state_dict(state)
    list(resumed.events())
    assert loop.method.source.files() == resumed.method.source.files()
    assert equal(weights(loop.setting.student), weights(resumed.setting.student))


def test_a_loss_that_is_not_finite_ends_the_run_with_one_line():
    loop = make("ssd", "train.lr=1e30")
    with pytest.raises(DfkdError, match="not finite"):
        list(loop.events())


def test_a_resumed_run_has_its_share_of_what_is_left_for_reading_the_pool():
    loop = make("unlabeled", "options.selection.reading_share=0.5")
    for progress in (0.6, 0.62):
        loop.round(progress)
    while not loop.method.source.ready(0.7):
        loop.round(0.7)
    assert loop.method.source.selected.complete
    late = make("unlabeled", "options.selection.reading_share=0.5")
    for progress in (0.5, 0.6, 0.81):  # the first chunk is read at 0.6
        late.round(progress)
    assert late.method.source.ready(0.81)
    assert not late.method.source.selected.complete
