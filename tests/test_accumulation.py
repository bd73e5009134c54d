"""Gradients in parts are the gradients of the whole, and memory that runs out is survived."""

import copy

import pytest
import torch
from test_methods import equal, make, weights
from torch import Tensor, nn

from dfkd_cli.accumulation import Accumulation, split
from dfkd_cli.errors import OutOfMemoryError
from dfkd_cli.methods import METHODS, Batch

FULL = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


class Memory:
    """A loss function that fails as an allocator does while it is given more than `room` images."""

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
    def loss(batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        assert batch.labels is not None
        logits = network(batch.images)
        value = nn.functional.cross_entropy(logits, batch.labels)
        return {"ce": value, "twice": 2 * value}, {"mean": logits.mean(dim=0)}

    return loss


def gradients(network: nn.Module) -> list[Tensor]:
    return [copy.deepcopy(parameter.grad) for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(FULL), MemoryError()])
@pytest.mark.parametrize("count", [12, 13])
def test_parts_give_the_gradient_and_the_means_of_the_whole(network, error, count):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    whole = Accumulation(optimizer).backward(batch_of(count), loss_of(network))
    expected = gradients(network)
    accumulation, memory = Accumulation(optimizer), Memory(loss_of(network), 4, error)
    terms = accumulation.backward(batch_of(count), memory)
    assert accumulation.parts == 4
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


def test_other_errors_are_not_taken_for_a_full_memory(network):
    accumulation = Accumulation(torch.optim.SGD(network.parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match="shapes"):
        accumulation.backward(batch_of(12), Memory(loss_of(network), 4, RuntimeError("shapes do not fit")))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_in_parts_says_so_and_resumes_in_parts(monkeypatch, name):
    method, run = make(name)
    monkeypatch.setattr(method, "student_loss", Memory(method.student_loss, 4, MemoryError()))
    events = run.run()
    next(event for event in events if event.step >= 2)
    state = copy.deepcopy(run.state_dict())
    last = list(events)[-1]
    assert last.step == 6
    assert torch.tensor(last.metrics["loss"]).isfinite()
    assert sum("in 2 parts" in note for note in run.notes()) == 1
    other, resumed = make(name, seed=5)
    resumed.load_state_dict(state)
    list(resumed.run())
    assert equal(weights(method.setting.student), weights(other.setting.student))


@pytest.mark.parametrize("name", METHODS)
def test_memory_that_images_do_not_fit_into_is_an_error_that_says_so(monkeypatch, name):
    method, run = make(name)

    def refresh(progress: float):
        raise MemoryError

    monkeypatch.setattr(method, "refresh", refresh)
    with pytest.raises(OutOfMemoryError, match="making images"):
        run._refresh(0.0)
