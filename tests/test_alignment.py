"""The aligned feature maps: the error's definition and laws, and that the projection fits maps of other sizes."""

from dataclasses import replace

import pytest
import torch
from tiny_methods import make

from dfkd_cli.errors import RecipeMismatchError
from dfkd_cli.training.distillation.alignment import FeatureAlignment, relative_error


def test_the_error_is_its_definition_zero_at_equality_one_for_zeros_and_without_a_scale():
    target, features = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    expected = (features - target).double().square().mean((1, 2, 3)) / target.double().square().mean()
    torch.testing.assert_close(relative_error(features, target).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(relative_error(100 * features, 100 * target), relative_error(features, target))
    assert relative_error(target, target).abs().max() == 0.0
    assert relative_error(torch.zeros_like(target), target).mean().item() == pytest.approx(1.0)


def test_a_target_of_zeros_gives_a_finite_error():
    assert relative_error(torch.zeros(2, 3), torch.zeros(2, 3)).isfinite().all()


@pytest.mark.parametrize("student_size", [(6, 6), (3, 3), (12, 9)])
def test_maps_of_every_size_are_compared_in_the_teachers(student_size):
    loop = make("csd")
    alignment = FeatureAlignment(loop.setting, 5)
    teacher, student = (seen.stages[-1].shape[1] for seen in loop.setting.probe())
    error = alignment(torch.rand(4, student, *student_size), torch.rand(4, teacher, 6, 6))
    assert error.shape == (4,)
    error.sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in alignment.parameters())


@pytest.mark.parametrize("lacking", ["teacher", "student"])
def test_networks_without_feature_maps_are_refused(monkeypatch, lacking):
    loop = make("csd")
    seen = dict(zip(("teacher", "student"), loop.setting.probe(), strict=True))
    seen[lacking] = seen[lacking]._replace(stages=())
    monkeypatch.setattr(loop.setting, "probe", lambda: tuple(seen.values()))
    network = getattr(loop.setting, lacking)
    monkeypatch.setattr(network, "origin", replace(network.origin, source=f"the {lacking}"))
    with pytest.raises(RecipeMismatchError, match=f"^the {lacking} has no visible feature maps"):
        FeatureAlignment(loop.setting, 5)
