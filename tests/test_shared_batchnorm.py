"""BatchNorm over two processes is BatchNorm of the whole batch in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from two_processes import run_in_two

from dfkd_cli.machine.world.batchnorm import synchronise
from dfkd_cli.machine.world.world import World

CHANNELS = 3
CASES: dict[str, dict[str, Any]] = {
    "images": {},
    "vectors": {"size": ()},
    "channels last": {"memory_format": torch.channels_last},
    "bfloat16": {"dtype": torch.bfloat16},
    "not affine": {"affine": False},
    "no running statistics": {"running": False},
    "mean of 1000 deviations": {"mean": 1000.0},
    "cumulative": {"momentum": None},
}


def inputs(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return a batch of eight in the case's type, and the gradient of its output."""
    generator = torch.Generator().manual_seed(0)
    shape = (8, CHANNELS, *case.get("size", (5, 4)))
    batch = torch.randn(shape, generator=generator) + case.get("mean", 0.0)
    batch[4:] *= 1.5  # the shares differ
    batch = batch.to(case.get("dtype", torch.float32))
    if "memory_format" in case:
        batch = batch.contiguous(memory_format=case["memory_format"])
    return batch, torch.randn(shape, generator=generator).to(batch.dtype)


def layer(case: dict[str, Any]) -> nn.Module:
    kind = nn.BatchNorm2d if case.get("size", (5, 4)) else nn.BatchNorm1d
    made = kind(
        CHANNELS,
        affine=case.get("affine", True),
        track_running_stats=case.get("running", True),
        momentum=case.get("momentum", 0.1),
    )
    if made.running_mean is not None:
        made.running_mean.fill_(case.get("mean", 0.0) * 0.999)
    if made.affine:
        nn.init.constant_(made.weight, 1.5)
        nn.init.constant_(made.bias, 0.25)
    return made


def outcome(made: nn.Module, batch: Tensor, gradient: Tensor) -> dict[str, Any]:
    batch = batch.detach().clone().requires_grad_()
    output = made(batch)
    output.backward(gradient)
    assert batch.grad is not None
    state = {name: value for name, value in made.state_dict().items() if "running" in name or "tracked" in name}
    gradients = {f"gradient of {name}": value.grad for name, value in made.named_parameters()}
    return {"output": output.detach(), "gradient": batch.grad} | state | gradients


def both(world: World) -> dict[str, Any]:
    half = slice(4 * world.rank, 4 * world.rank + 4)
    outcomes = {}
    for name, case in CASES.items():
        made, (batch, gradient) = layer(case), inputs(case)
        synchronise(made, world)
        outcomes[name] = outcome(made, batch[half], gradient[half])
    return outcomes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return run_in_two(both, tmp_path_factory.mktemp("batchnorm"))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_normalise_the_whole_batch(outcomes, name):
    one, other = (each[name] for each in outcomes)
    batch, gradient = inputs(CASES[name])
    whole = outcome(layer(CASES[name]).double(), batch.double(), gradient.double())
    rough = {"bfloat16": 2e-2, "mean of 1000 deviations": 1e-3}.get(name, 1e-5)
    assert one.keys() == whole.keys()
    for key, value in whole.items():
        if "of" in key:  # the parameters' gradients are added later, by average_gradients
            result = one[key] + other[key]
        elif key in ("output", "gradient"):
            result = torch.cat([one[key], other[key]])
            assert result.dtype == batch.dtype
        else:
            torch.testing.assert_close(one[key], other[key], rtol=0.0, atol=0.0)
            result = one[key]
        torch.testing.assert_close(
            result.double(), value.double(), rtol=rough, atol=rough, msg=lambda m, k=key: f"{k}: {m}"
        )
