"""The law of scales: filters before a BatchNorm can have any scale, and neither images nor students depend on it."""

import pytest
import torch
from tiny_methods import GENERATIVE, deep_module, make, warm

from dfkd_cli.methods import METHODS

SCALE = 64.0
IMAGES = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_scaled_teacher_computes_the_same():
    torch.testing.assert_close(deep_module(scale=SCALE)(IMAGES), deep_module()(IMAGES))


@pytest.mark.parametrize("name", METHODS)
def test_a_student_made_from_a_scaled_teacher_computes_the_same(name):
    one, other = (make(name, share=0.6, scale=scale) for scale in (1.0, SCALE))
    before = one.setting.student.eval()(IMAGES).detach()
    for loop in (one, other):
        list(loop.events())
    expected, found = (loop.setting.student.eval()(IMAGES).detach() for loop in (one, other))
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.05 * float((expected - before).abs().max()))


@pytest.mark.parametrize("name", GENERATIVE)
def test_a_scaled_teacher_gives_the_same_images(name):
    batches = [warm(make(name, share=0.6, scale=scale)).method.source.sample() for scale in (1.0, SCALE)]
    torch.testing.assert_close(batches[1].images, batches[0].images, rtol=0.0, atol=1.5 / 255)


def test_the_published_form_depends_on_the_scale():
    """The law above can fail."""
    published = ("options.inversion.bn_form=norm", "options.inversion.weights.bn=1")
    losses = [make("ssd", *published, share=0.6, scale=scale).round(0.0)["synthesis/bn"] for scale in (1.0, SCALE)]
    assert losses[1] > 2.0 * losses[0]
