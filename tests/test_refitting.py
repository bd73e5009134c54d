"""New weights after channels are removed: exact where the removed channels can be computed from the others."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from dfkd_cli.narrowing.layers import Gone
from dfkd_cli.narrowing.plan import shrink
from dfkd_cli.narrowing.refitting import refit

LAYERS = {
    "plain": nn.Conv2d(4, 5, 3, padding=1),
    "strided": nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=False),
    "dilated": nn.Conv2d(4, 5, (3, 2), padding=(2, 0), dilation=2),
    "pointwise": nn.Conv2d(4, 5, 1, stride=2),
}


def redundant(reader: nn.Module) -> nn.Sequential:
    """Return a network whose last two inner channels are sums of its first two."""
    torch.manual_seed(0)
    writer = nn.Conv2d(2, 4, 3, padding=1)
    with torch.no_grad():
        for parameter in writer.parameters():
            parameter[2] = parameter[0] - parameter[1]
            parameter[3] = 0.5 * parameter[0]
    return nn.Sequential(writer, copy.deepcopy(reader))


def without_channels(teacher: nn.Module, gone: Gone) -> nn.Module:
    student = copy.deepcopy(teacher)
    shrink(student, gone)
    return student


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same_without_channels_that_the_others_determine(name, monkeypatch):
    monkeypatch.setattr("dfkd_cli.narrowing.refitting.RIDGE", 1e-8)
    teacher, images = redundant(LAYERS[name]), torch.randn(64, 2, 9, 9)
    gone: Gone = {("0", "out"): {2, 3}, ("1", "in"): {2, 3}}
    student = without_channels(teacher, gone)
    assert (student(images) - teacher(images)).abs().max() > 0.1
    refit(teacher, student, gone, ("0", "1"), list(images.split(16)))
    torch.testing.assert_close(student(images), teacher(images), rtol=0.0, atol=1e-3)


def test_a_linear_layer_makes_up_for_the_mean_of_removed_features():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    features = torch.randn(512, 6)
    gone: Gone = {("0", "out"): {0, 5}, ("2", "in"): {0, 5}}
    before, student = without_channels(teacher, gone), without_channels(teacher, gone)
    refit(teacher, student, gone, ("0", "2"), [features])
    errors = [(network(features) - teacher(features)).square().mean() for network in (before, student)]
    assert errors[1] < 0.5 * errors[0]
    assert (student(features) - teacher(features)).mean(0).abs().max() < 0.05


def test_layers_of_the_kept_outputs_only_are_fitted_to_them():
    teacher, images = redundant(LAYERS["plain"]), torch.randn(64, 2, 9, 9)
    gone: Gone = {("0", "out"): {2}, ("1", "in"): {2}, ("1", "out"): {1, 3}}
    student = without_channels(teacher, gone)
    refit(teacher, student, gone, ("0", "1"), [images])
    error = (student(images) - teacher(images)[:, [0, 2, 4]]).square().mean()
    assert error < 0.01 * teacher(images).var()


def test_a_layer_that_is_called_twice_keeps_its_weights():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.inner(self.inner(features))

    teacher = Twice()
    student = copy.deepcopy(teacher)
    refit(teacher, student, {("inner", "in"): set([9])}, ("inner",), [torch.randn(8, 4)])
    assert torch.equal(student.inner.weight, teacher.inner.weight)


@pytest.mark.parametrize("kept_bytes", [1, 2**28])
def test_each_layer_is_fitted_after_those_before_it(kept_bytes, monkeypatch):
    monkeypatch.setattr("dfkd_cli.narrowing.refitting.RIDGE", 1e-8)
    monkeypatch.setattr("dfkd_cli.narrowing.refitting.KEPT_BYTES", kept_bytes)
    teacher = nn.Sequential(*redundant(LAYERS["plain"]), nn.Flatten(), nn.Linear(5 * 81, 3))
    images = torch.randn(512, 2, 9, 9)
    gone: Gone = {("0", "out"): {2, 3}, ("1", "in"): {2, 3}, ("1", "out"): {4}, ("3", "in"): set(range(4 * 81, 5 * 81))}
    student: Any = without_channels(teacher, gone)
    with torch.no_grad():
        student[1].weight *= 0.5  # which the layer before the last one makes good
    refit(teacher, student, gone, ("0", "1", "3"), list(images.split(128)))
    torch.testing.assert_close(student[:2](images), teacher[:2](images)[:, :4], rtol=0.0, atol=1e-3)
    assert (student(images) - teacher(images)).square().mean() < 0.5 * teacher(images).var()


def test_the_teacher_is_computed_once_and_the_student_up_to_each_layer():
    teacher = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)))
    gone: Gone = {}
    for number in range(3):
        gone[str(number), "out"] = gone[str(number + 1), "in"] = {5}
    student: Any = without_channels(teacher, gone)
    computed = {"teacher": 0, "student": 0}
    for name, network in (("teacher", teacher), ("student", student)):
        for layer in network:
            layer.register_forward_pre_hook(lambda *_, name=name: computed.update({name: computed[name] + 1}))
    refit(teacher, student, gone, ("0", "1", "2", "3"), [torch.randn(64, 6)])
    assert computed == {"teacher": 4, "student": 2 + 3 + 4}
