"""The optimizer depends on the student, and has the rates of the recipe."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dfkd_cli.training.optimizer import OptimizerConfig, learning_rates, make_optimizer, suited_optimizer

NORMALISED = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
PLAIN = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))


@pytest.mark.parametrize(("student", "kind"), [(NORMALISED, "muon"), (PLAIN, "adamw")], ids=["BatchNorm", "LayerNorm"])
def test_muon_is_for_students_with_batchnorm(student, kind):
    assert suited_optimizer(student) == kind


CONFIG = OptimizerConfig("auto", lr=0.1, muon_lr=0.02, muon_decay=0.3, adamw_lr=0.004, momentum=0.9, weight_decay=1e-4)
# Rate and decay of biases and of filters, for a new student and for one that begins as the teacher.
GROUPS = {
    ("muon", False): [(0.1, 1e-4), (0.02, 0.3)],
    ("sgd", False): [(0.1, 1e-4)],
    ("adamw", False): [(0.004, 1e-4)],
    ("muon", True): [(0.02, 0.0), (0.02, 0.3)],
    ("sgd", True): [(0.1, 1e-4)],
    ("adamw", True): [(0.004, 0.0), (0.004, 0.0)],
}


@pytest.mark.parametrize(("kind", "fine_tuning"), GROUPS)
def test_each_optimizer_has_its_rates_and_decays(kind, fine_tuning):
    optimizer = make_optimizer(nn.Conv2d(1, 2, 3), kind, CONFIG, fine_tuning=fine_tuning)
    found = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == GROUPS[kind, fine_tuning]


@pytest.mark.parametrize(("kind", "fine_tuning"), GROUPS)
def test_the_values_to_lower_after_a_divergence_are_those_that_are_used(kind, fine_tuning):
    names = learning_rates(kind, fine_tuning=fine_tuning).split(", ")
    values = {getattr(CONFIG, name.removeprefix("train.")) for name in names}
    assert values == {rate for rate, _ in GROUPS[kind, fine_tuning]}


@pytest.mark.parametrize("fine_tuning", [False, True], ids=["new", "from the teacher"])
@pytest.mark.parametrize("kind", ["muon", "sgd", "adamw"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_each_optimizer_descends(kind, momentum, fine_tuning):
    layer = nn.Linear(2, 1)
    optimizer = make_optimizer(layer, kind, replace(CONFIG, momentum=momentum), fine_tuning=fine_tuning)
    before = [parameter.detach().abs() for parameter in layer.parameters()]
    torch.stack([parameter.square().sum() for parameter in layer.parameters()]).sum().backward()
    optimizer.step()
    assert all((new.abs() < old).all() for new, old in zip(layer.parameters(), before, strict=True))
