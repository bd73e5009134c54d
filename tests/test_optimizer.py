"""The optimizer depends on the student, and has the rates of the recipe."""

import pytest
import torch
from torch import nn

from dfkd_cli.training.optimizer import OptimizerConfig, make_optimizer, suited_optimizer

NORMALISED = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
PLAIN = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))


@pytest.mark.parametrize(("student", "kind"), [(NORMALISED, "muon"), (PLAIN, "adamw")], ids=["BatchNorm", "LayerNorm"])
def test_muon_is_for_students_with_batchnorm(student, kind):
    assert suited_optimizer(student) == kind


@pytest.mark.parametrize("kind", ["muon", "sgd", "adamw"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_each_optimizer_has_its_rate_and_decay(kind, momentum):
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    config = OptimizerConfig("auto", 0.1, 0.02, 0.1, 0.1, momentum, 1e-4)
    optimizer = make_optimizer(nn.ParameterList([weight]), kind, config)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.1, 1e-4)
    before = weight.detach().clone()
    (weight**2).sum().backward()
    optimizer.step()
    assert (weight.abs() < before.abs()).all()
