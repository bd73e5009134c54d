"""The task of a network: seen in its logits, overridden by --task, and the same losses for both tasks."""

from functools import partial

import pytest
import torch
from loading_helpers import export, load, script
from segmentation_networks import CLASSES, LOOK, SIZE, InDict, make_fcn
from torch import nn

from dfkd_cli.errors import TeacherError
from dfkd_cli.networks.tasks import CLASSIFICATION, SEGMENTATION
from dfkd_cli.synthesis.batchnorm import batchnorm_loss
from dfkd_cli.synthesis.terms import contested_kl
from dfkd_cli.training.distillation import losses

LOSSES = {
    "kl_div": partial(losses.kl_div, temperature=4.0),
    "logit_distance": losses.logit_distance,
    "agreement": losses.agreement,
    "class_dropped_kl": partial(losses.class_dropped_kl, kept=2),
    "contested_kl": contested_kl,
}


def random_logits(*shape: int, seed: int) -> torch.Tensor:
    return 3.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", LOSSES)
class TestDenseLosses:
    def test_a_loss_of_one_pixel_is_that_of_classification(self, name):
        student, teacher = random_logits(5, 7, seed=0), random_logits(5, 7, seed=1)
        dense = LOSSES[name](student.view(5, 7, 1, 1), teacher.view(5, 7, 1, 1))
        torch.testing.assert_close(dense, LOSSES[name](student, teacher))

    def test_a_loss_does_not_depend_on_how_often_an_image_is_tiled(self, name):
        student, teacher = random_logits(2, 7, 3, 4, seed=0), random_logits(2, 7, 3, 4, seed=1)
        tiled = LOSSES[name](student.repeat(1, 1, 2, 3), teacher.repeat(1, 1, 2, 3))
        torch.testing.assert_close(tiled, LOSSES[name](student, teacher))


def test_batch_entropy_of_pixels_is_that_of_as_many_images():
    logits = random_logits(2, 7, 3, 4, seed=0)
    rows = torch.stack([logits[b, :, h, w] for b in range(2) for h in range(3) for w in range(4)])
    torch.testing.assert_close(losses.batch_entropy(logits), losses.batch_entropy(rows))


def test_class_shares_are_those_of_pixels_and_of_images():
    classes = torch.tensor([[[0, 0], [2, 1]], [[2, 2], [2, 2]]])
    shares = SEGMENTATION.class_shares(classes, 4)
    torch.testing.assert_close(shares, torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 1.0, 0.0]]))
    assert SEGMENTATION.image_class(classes, 4).tolist() == [0, 2]
    assert CLASSIFICATION.class_shares(torch.tensor([1, 0]), 2).tolist() == [[0.0, 1.0], [1.0, 0.0]]


class TestLoading:
    @pytest.mark.parametrize("save", [script, export])
    def test_logits_of_pixels_are_enlarged_to_the_image(self, tmp_path, save):
        module = make_fcn()
        teacher = load(save(module, tmp_path / "t.pt", SIZE), input_size=SIZE, **LOOK)
        assert (teacher.spec.task, teacher.spec.num_classes) == ("segmentation", CLASSES)
        images = torch.rand(3, *SIZE)
        small = module((images - 0.4) / 0.3)
        expected = nn.functional.interpolate(small, SIZE[1:], mode="bilinear", align_corners=False)
        for logits in (teacher(images), teacher.observe(images).logits):
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        assert teacher.observe(images).embedding is None

    def test_one_logit_per_pixel_means_two_classes(self, tmp_path):
        module = make_fcn(outputs=1)
        teacher = load(script(module, tmp_path / "t.pt", SIZE), input_size=SIZE, **LOOK)
        assert teacher.spec.num_classes == 2
        images = torch.rand(2, *SIZE)
        enlarged = SEGMENTATION.at_size(module((images - 0.4) / 0.3), images)
        assert torch.equal(teacher(images).argmax(dim=1), (enlarged > 0.0).long()[:, 0])

    def test_the_entry_out_of_a_dict_is_used_and_aux_is_not(self, tmp_path):
        module = make_fcn()
        plain = load(export(module, tmp_path / "a.pt2", SIZE), input_size=SIZE, **LOOK)
        in_dict = load(export(InDict(module).eval(), tmp_path / "b.pt2", SIZE), input_size=SIZE, **LOOK)
        images = torch.rand(2, *SIZE)
        assert torch.equal(in_dict(images), plain(images))

    @pytest.mark.parametrize("task", ["classification", "segmentation"])
    def test_a_named_task_that_the_logits_contradict_is_refused(self, tmp_path, task):
        dense = task == "classification"
        module = make_fcn() if dense else nn.Sequential(make_fcn(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        with pytest.raises(TeacherError, match=f"but logits must have the shape .*{task}"):
            load(script(module, tmp_path / "t.pt", SIZE), input_size=SIZE, task=task, **LOOK)

    def test_every_form_of_a_network_gives_the_same_bn_loss_and_gradient(self, tmp_path):
        module = make_fcn()
        with pytest.warns(FutureWarning, match="deprecated"):
            torch.jit.save(torch.jit.script(module), tmp_path / "s.pt")
        torch.save(module, tmp_path / "eager.pt")
        teachers = [
            load(tmp_path / "eager.pt", input_size=SIZE, trust_pickle=True, **LOOK),
            load(script(module, tmp_path / "t.pt", SIZE), input_size=SIZE, **LOOK),
            load(tmp_path / "s.pt", input_size=SIZE, **LOOK),
            load(export(InDict(module).eval(), tmp_path / "d.pt2", SIZE), input_size=SIZE, **LOOK),
        ]
        found = []
        for teacher in teachers:
            images = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)).requires_grad_()
            seen = teacher.observe(images)
            loss = batchnorm_loss(seen.norm_inputs, teacher.norm_statistics, "relative")
            found.append((loss.detach(), *torch.autograd.grad(loss, images)))
        for loss, gradient in found[1:]:
            torch.testing.assert_close(loss, found[0][0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(gradient, found[0][1], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("task", [None, "segmentation"])
    def test_answers_that_are_far_apart_are_no_classes_of_tiny_images(self, tmp_path, task):
        layers = [(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()) for channels in (3, 8, 8)]
        module = nn.Sequential(*(layer for block in layers for layer in block), nn.Conv2d(8, 5, 1)).eval()
        teacher = load(script(module, tmp_path / "t.pt", (3, 64, 64)), task=task, **LOOK)
        assert (teacher.spec.task, teacher.spec.size) == ("segmentation", (3, 256, 256))
        assert teacher.spec.assumed == ("input_size",)

    def test_the_size_of_a_segmentation_network_is_assumed_to_be_usual(self, tmp_path):
        torch.save(make_fcn(), tmp_path / "t.pth")
        teacher = load(tmp_path / "t.pth", trust_pickle=True, **LOOK)
        assert (teacher.spec.size, teacher.spec.assumed) == ((3, 256, 256), ("input_size",))


def test_a_cap_bounds_each_answer():
    student, teacher = random_logits(2, 7, 3, 4, seed=0), random_logits(2, 7, 3, 4, seed=1)
    answers = losses.answer_kl(student, teacher)
    assert answers.max() > 1.0
    expected = answers.clamp(max=1.0).mean(dim=(1, 2))
    torch.testing.assert_close(losses.kl_div(student, teacher, cap=1.0), expected)
    torch.testing.assert_close(contested_kl(student, student, cap=1.0), torch.zeros(2), atol=1e-5, rtol=0.0)
