"""Stages that a student by name shares with its teacher in shape: recorded, weighed, and switched off."""

import pytest
import torch
from tiny_methods import make, warm, wrapped
from torch import nn

from dfkd_cli.methods import METHODS
from dfkd_cli.training.fine_tuning import FineTuningMuon
from dfkd_cli.training.muon import Muon


def terms(loop, learned: float = 0.0) -> dict[str, torch.Tensor]:
    return loop._loss(loop.method.source.sample(), learned).terms


@pytest.mark.parametrize("name", METHODS)
def test_every_method_compares_stages_of_equal_shape(name):
    loop = warm(make(name, "train.stages=10", "train.stages_until=0.5", student_width=8))
    student, teacher = torch.ones(2, 3), torch.full((2, 3), 2.0)
    assert terms(loop, 0.25)["stages"].isfinite()
    assert loop.hints((student,), (teacher,), 0.5) == loop.hints((student,), (teacher,), 1.0) == {}
    for learned, share in ((0.0, 1.0), (0.25, 0.5)):
        assert loop.hints((student,), (teacher,), learned)["stages"].item() == pytest.approx(share * 10.0 * 0.25)


def test_without_a_weight_or_without_equal_stages_there_is_no_term():
    assert "stages" not in terms(warm(make("ssd", "train.stages=0")))
    assert "stages" not in terms(warm(make("ssd", "train.stages=10")))  # 4 and 8 channels


@pytest.mark.parametrize(("width", "kind"), [(8, FineTuningMuon), (4, Muon)])
def test_steps_do_not_depend_on_the_size_of_the_term(width, kind):
    loop = make("ssd", "train.stages=10", student_width=width)
    assert type(loop.optimizer) is kind


def test_only_stages_of_equal_shape_are_compared():
    def network(first: int, second: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(second, 3),
        )

    loop = make("dafl")
    setting = loop.setting
    setting.teacher, setting.student = wrapped(network(6, 8)), wrapped(network(4, 8))
    assert setting._stages_of_equal_shape() == ((1, 1),)
