"""Gradients computed in parts equal those of the whole batch, and a run continues after memory ran out."""

import copy
import os
import signal
import threading
import time
import weakref
from contextvars import ContextVar
from functools import partial

import pytest
import torch
from tiny_methods import GENERATIVE, equal, make, warm, weights
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dfkd_cli.errors import OutOfMemoryError
from dfkd_cli.machine.new_thread import in_new_thread
from dfkd_cli.methods import METHODS
from dfkd_cli.synthesis.generator_loss import Generated
from dfkd_cli.training.accumulation import Accumulation, split
from dfkd_cli.training.method import Batch, StudentTerms

FULL = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


class Memory:
    """A loss function that raises an allocator's error for more than `room` images."""

    def __init__(self, loss, room: int, error: Exception):
        self.loss, self.room, self.error = loss, room, error
        self.sizes: list[int] = []

    def __call__(self, batch: Batch, *rest):
        self.sizes.append(len(batch.images))
        if len(batch.images) > self.room:
            raise self.error
        return self.loss(batch, *rest)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()


def batch_of(count: int) -> Batch:
    images = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    return Batch(images, labels=torch.arange(count) % 3)


def loss_of(network: nn.Module):
    def loss(batch: Batch) -> StudentTerms:
        assert batch.labels is not None
        logits = network(batch.images)
        value = nn.functional.cross_entropy(logits, batch.labels)
        return StudentTerms({"ce": value, "twice": 2 * value}, {"mean": logits.mean(dim=0)}, {"each": logits.detach()})

    return loss


def gradients(network: nn.Module) -> list[Tensor]:
    return [copy.deepcopy(parameter.grad) for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(FULL), MemoryError()])
@pytest.mark.parametrize("count", [12, 13])
def test_parts_give_the_gradient_and_the_means_of_the_whole(network, error, count):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    whole, whole_each = Accumulation(optimizer).backward(batch_of(count), loss_of(network))
    expected = gradients(network)
    accumulation, memory = Accumulation(optimizer), Memory(loss_of(network), 4, error)
    terms, each = accumulation.backward(batch_of(count), memory)
    torch.testing.assert_close(each["each"], whole_each["each"])
    assert accumulation.parts.count == 4
    assert len(expected) == 2
    for one, other in zip(expected, gradients(network), strict=True):
        torch.testing.assert_close(one, other)
    for name, value in whole.items():
        torch.testing.assert_close(terms[name], value.detach())
    assert terms.keys() == whole.keys()
    assert max(memory.sizes[-4:]) <= 4
    accumulation.backward(batch_of(count), memory)
    assert max(memory.sizes[-4:]) <= 4


def test_parts_hold_every_image_once_and_at_least_two():
    parts = list(split(batch_of(13), 4))
    assert torch.equal(torch.cat([part.images for part in parts]), batch_of(13).images)
    assert torch.equal(torch.cat([part.labels for part in parts if part.labels is not None]), torch.arange(13) % 3)
    assert [len(part.images) for part in parts] == [4, 3, 3, 3]
    assert all(part.index is None for part in parts)


def test_memory_for_less_than_two_images_is_an_error_that_says_so(network):
    accumulation = Accumulation(torch.optim.SGD(network.parameters(), lr=0.1))
    with pytest.raises(OutOfMemoryError, match="3 images at a time") as caught:
        accumulation.backward(batch_of(12), Memory(loss_of(network), 1, MemoryError()))
    assert caught.value.exit_code == 6


def test_a_thread_that_failed_once_is_not_used_again(network):
    """oneDNN generates no more code in a thread in which it found no memory for it once."""
    failed = threading.local()
    loss = loss_of(network)

    def spoiled(batch: Batch) -> StudentTerms:
        if len(batch.images) > 4 or getattr(failed, "once", False):
            failed.once = True
            raise RuntimeError("could not create a primitive")
        return loss(batch)

    accumulation = Accumulation(torch.optim.SGD(network.parameters(), lr=0.1))
    for _ in range(2):
        accumulation.backward(batch_of(12), spoiled)
    assert accumulation.parts.count == 4


def test_a_thread_of_its_own_computes_as_the_caller_would():
    setting: ContextVar[int] = ContextVar("setting", default=0)
    setting.set(3)
    assert in_new_thread(lambda: (setting.get(), torch.get_num_threads())) == (3, torch.get_num_threads())
    large = torch.ones(2)
    kept = weakref.ref(large)

    def fails(held: Tensor):
        raise RuntimeError(f"{held.sum():g}")

    try:
        in_new_thread(partial(fails, large))
    except RuntimeError as error:
        reason = str(error)
    del large
    assert (reason, kept()) == ("2", None)  # the error kept no tensor


def test_an_interrupt_waits_for_the_thread():
    """A process that ended while a thread computes would be aborted."""
    ended = []

    def interrupted():
        time.sleep(0.2)  # until the caller waits
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        ended.append(True)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            in_new_thread(interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended


def test_other_errors_are_not_taken_for_a_full_memory(network):
    accumulation = Accumulation(torch.optim.SGD(network.parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match="shapes"):
        accumulation.backward(batch_of(12), Memory(loss_of(network), 4, RuntimeError("shapes do not fit")))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_continues_in_parts_with_a_note_and_resumes_in_parts(monkeypatch, name):
    loop = make(name)
    monkeypatch.setattr(loop.method.loss, "compute", Memory(loop.method.loss.compute, 4, MemoryError()))
    events = loop.events()
    next(event for event in events if event.step >= 2)
    state = copy.deepcopy(loop.state_dict())
    last = list(events)[-1]
    assert last.step == 6
    assert torch.tensor(last.metrics["loss"]).isfinite()
    assert sum("in 2 parts" in note for note in loop.notes()) == 1
    resumed = make(name, seed=5)
    resumed.load_state_dict(state)
    list(resumed.events())
    assert equal(weights(loop.setting.student), weights(resumed.setting.student))


@pytest.mark.parametrize("name", METHODS)
def test_what_is_trained_beside_the_student_does_not_depend_on_the_number_of_parts(monkeypatch, name):
    """There is one update per student step. Parts would differ with BatchNorm, or if the student changed."""
    still = [f"train.{rate}=1e-8" for rate in ("lr", "muon_lr", "adamw_lr")]
    states = []
    for room in (8, 4, 2):
        loop = warm(make(name, *still, student_norm=False))
        monkeypatch.setattr(loop.method.loss, "compute", Memory(loop.method.loss.compute, room, MemoryError()))
        for _ in range(2):
            loop.student_step(0.5)
        assert loop.accumulation.parts.count == 8 // room
        states.append(tree_leaves(loop.method.state_dict()))
    for state in states[1:]:
        assert len(state) == len(states[0])
        for value, expected in zip(state, states[0], strict=True):
            if isinstance(expected, Tensor):
                torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
            else:
                assert value == expected


@pytest.mark.parametrize("name", GENERATIVE)
def test_images_are_generated_in_parts_after_memory_ran_out_also_when_resumed(monkeypatch, name):
    loop = make(name)
    look = loop.method.source.loss.forward
    sizes: list[int] = []

    def full(images: Tensor):
        sizes.append(len(images))
        if len(images) > 4:
            raise RuntimeError(FULL)
        return look(images)

    monkeypatch.setattr(loop.method.source.loss, "forward", full)
    events = list(loop.events())
    assert events[-1].step == 6
    assert {size for size in sizes if size <= 4} == {3}
    assert sum(size > 4 for size in sizes) == 2  # twelve images, then six
    assert sum("images are made in 4 parts" in note for note in loop.notes()) == 1
    resumed = make(name, seed=5)
    resumed.load_state_dict(copy.deepcopy(loop.state_dict()))
    assert resumed.method.source.trainer.parts.count == 4


def test_a_generator_step_in_parts_has_the_gradient_of_the_whole():
    loop = make("ssd")
    synthesizer = loop.method.source.trainer
    # Without BatchNorm, whose statistics of a part are not those of the whole.
    generator = nn.Sequential(nn.Linear(3, 12), nn.Unflatten(1, (3, 2, 2))).double()

    def objective(images: Tensor, labels: Tensor | None) -> Generated:
        logits = images.mean(dim=(2, 3))
        return Generated(images, logits.argmax(dim=1), logits, None, {"some": images.square().mean()})

    noise = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesizer, "forward", lambda noise, labels: generator(noise))
        for parts in (1, 3):
            generator.zero_grad()
            made = synthesizer._gradients(objective, noise, None, parts)
            assert noise.grad is not None
            found.append((made, noise.grad.clone(), gradients(generator)))
    (whole, noise_whole, weights_whole), (split_up, noise_split, weights_split) = found
    torch.testing.assert_close(split_up.images, whole.images)
    torch.testing.assert_close(split_up.terms["some"].double(), whole.terms["some"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(noise_split, noise_whole)
    assert len(weights_whole) == 2
    for one, other in zip(weights_split, weights_whole, strict=True):
        torch.testing.assert_close(one, other)


def test_memory_for_less_than_two_generated_images_is_an_error_that_says_so(monkeypatch):
    loop = make("ssd")

    def full(images: Tensor):
        raise MemoryError

    monkeypatch.setattr(loop.method.source.loss, "forward", full)
    with pytest.raises(OutOfMemoryError, match="3 images at a time"):
        loop.round(0.0)
