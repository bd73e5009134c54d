"""The average of a student's latest weights, against its definition, and its properties."""

from collections.abc import Iterator

import pytest
import torch
from tiny_methods import make
from torch import nn

from dfkd_cli.training.averaging import WeightAverage


def states(module: nn.Module, count: int) -> Iterator[torch.Tensor]:
    """Change the weight of a module `count` times and yield each state."""
    rng = torch.Generator().manual_seed(0)
    for _ in range(count):
        with torch.no_grad():
            module.get_parameter("weight").copy_(torch.randn(4, 4, generator=rng))
        yield module.get_parameter("weight").detach().clone()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_it_is_the_moving_average_of_its_definition(share):
    module = nn.Linear(4, 4)
    average = WeightAverage(module, share)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for step, state in enumerate(states(module, 50), 1):
        average.update(step)
        weight = 1.0 / max(1.0, share * step)
        expected = (1.0 - weight) * expected + weight * state.double()
    average.apply()
    torch.testing.assert_close(module.weight.detach().double(), expected, atol=1e-6, rtol=1e-5)


def followed(module: nn.Module, average: WeightAverage, count: int) -> list[torch.Tensor]:
    """Change the weight of a module `count` times, update its average each time, and return the states."""
    seen = []
    for step, state in enumerate(states(module, count), 1):
        average.update(step)
        seen.append(state)
    return seen


def test_with_a_share_of_one_it_is_the_mean_of_all_states():
    module = nn.Linear(4, 4)
    average = WeightAverage(module, 1.0)
    seen = followed(module, average, 20)
    average.apply()
    torch.testing.assert_close(module.weight.detach(), torch.stack(seen).mean(0))


def test_batchnorm_statistics_are_averaged_and_counters_are_left_alone():
    layer = nn.BatchNorm1d(3)
    average = WeightAverage(layer, 1.0)
    for step, value in enumerate((1.0, 3.0), 1):
        layer.get_buffer("running_mean").fill_(value)
        layer.get_buffer("num_batches_tracked").fill_(step)
        average.update(step)
    average.apply()
    assert layer.get_buffer("running_mean").tolist() == [2.0] * 3
    assert layer.get_buffer("num_batches_tracked").item() == 2


def test_the_average_can_be_applied_and_reverted():
    module = nn.Linear(4, 4)
    average = WeightAverage(module, 1.0)
    seen = followed(module, average, 5)
    with average.applied():
        torch.testing.assert_close(module.weight.detach(), torch.stack(seen).mean(0))
    assert torch.equal(module.weight, seen[-1])


def test_a_run_ends_with_the_average_of_its_latest_weights():
    last, averaged = (make("ssd", f"train.average={share}") for share in (0.0, 1.0))
    after = []
    for loop in (last, averaged):
        states = []
        update = loop.average.update

        def record(steps: int, loop=loop, states=states, update=update) -> None:
            states.append(next(loop.setting.student.parameters()).detach().clone())
            update(steps)

        loop.average.update = record
        for _ in loop.events():
            pass
        after.append((states, next(loop.setting.student.parameters()).detach()))
    torch.testing.assert_close(after[0][1], after[0][0][-1])
    torch.testing.assert_close(after[1][1], torch.stack(after[1][0]).mean(0))
    assert not torch.allclose(after[1][1], after[1][0][-1])
