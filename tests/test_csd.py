"""`csd`: the head beside the student, the reward, the rounds and the labels."""

import copy
from typing import Any

import pytest
import torch
from tiny_methods import make, warm
from torch import nn

from dfkd_cli.training.method import Batch


def begun(*more: str) -> Any:
    """Return the loop of the method after its warm-up."""
    return warm(make("csd", *more))


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def changed(before: dict[str, torch.Tensor], network: nn.Module) -> bool:
    return any(not torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_head_is_trained_and_does_not_change_the_student():
    loop = begun()
    student, head = loop.setting.student, loop.method.loss.task.head
    student.train()
    before_student, before_head = state(student), state(head)
    batch = loop.method.source.sample()
    logged = loop.method.loss.task.train(batch.images, batch.labels, torch.ones(8))
    assert changed(before_head, head)
    assert not changed(before_student, student)  # neither weights nor BatchNorm statistics
    assert all(parameter.grad is None for parameter in student.parameters())
    assert student.training
    assert logged["head/loss"] > 0


@pytest.mark.parametrize("every", ["true", "false"])
def test_the_head_is_trained_only_on_images_with_a_weight(every):
    heads = []
    for others in (0, 1):
        loop = begun(f"options.head.every_rotation={every}")
        batch, weights = loop.method.source.sample(), torch.tensor([1.0, 0.0] * 4)
        labels = torch.where(weights == 1, batch.labels, (batch.labels + others) % 3)
        logged = loop.method.loss.task.train(batch.images, labels, weights)
        heads.append((state(loop.method.loss.task.head), logged["head/loss"]))
    torch.testing.assert_close(heads[0], heads[1])


def test_labels_that_the_teacher_does_not_predict_do_not_train_the_head():
    learned = {}
    for masked in ("true", "false"):
        loop = begun(f"options.labels.mask={masked}")
        images = loop.method.source.sample().images
        with torch.no_grad():
            wrong = (loop.setting.teacher(images).argmax(dim=1) + 1) % 3
        before = state(loop.method.loss.task.head)
        loop.method.loss.task.optimizer.param_groups[0]["weight_decay"] = 0.0
        batch = Batch(images, wrong)
        loop.method.loss.after_step(batch, loop.method.loss.compute(batch, 0.5).per_image)
        learned[masked] = changed(before, loop.method.loss.task.head)
    assert learned == {"true": False, "false": True}


def test_the_head_does_not_depend_on_the_size_of_the_embedding():
    loop = begun()
    loop.student_step(0.5)
    images, labels = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    loop.setting.student.eval()
    with torch.no_grad():
        hardness = loop.method.loss.task.hardness(images, labels)
        inner = loop.method.loss.task._embedding
        loop.method.loss.task._embedding = lambda views: 50.0 * inner(views)
        torch.testing.assert_close(loop.method.loss.task.hardness(images, labels), hardness, rtol=1e-3, atol=1e-3)


def test_the_student_is_the_same_with_and_without_a_head_beside_it():
    """Without a reward the head is not trained; with a tiny one the images are the same too."""
    students = []
    for reward in ("0", "1e-30"):
        loop = make("csd", f"options.reward.weight={reward}")
        list(loop.events())
        students.append(state(loop.setting.student))
    assert all(torch.equal(value, students[1][name]) for name, value in students[0].items())


def test_there_is_no_reward_before_the_heads_first_step():
    loop = begun()
    assert "synthesis/reward" not in loop.round(0.5)
    loop.student_step(0.5)
    assert loop.round(0.5)["synthesis/reward"] < 0


def test_the_generator_raises_the_heads_error():
    loop = begun("options.reward.cap=1000")
    loop.student_step(0.5)
    images, labels = torch.rand(12, 1, 8, 8, requires_grad=True), torch.arange(12) % 3
    loop.setting.student.eval()
    hardness = loop.method.loss.task.hardness(images, labels).mean()
    (gradient,) = torch.autograd.grad(hardness, images)
    moved = images.detach() + 0.1 * gradient / gradient.norm()
    assert loop.method.loss.task.hardness(moved, labels).mean() > hardness


def test_the_reward_of_an_image_is_bounded_by_the_cap():
    loop = begun("options.reward.cap=0.01", "options.reward.weight=3.0")
    loop.student_step(0.5)
    expected = -3.0 * 0.01 * torch.tensor(loop.method.loss.task.chance)
    torch.testing.assert_close(loop.round(0.5)["synthesis/reward"], expected)


@pytest.mark.parametrize("reward", [0.0, 1.0])
@pytest.mark.parametrize("adversarial", [0.0, 1.0])
def test_reward_and_adversary_are_independent(reward, adversarial):
    loop = begun(f"options.reward.weight={reward}", f"options.inversion.weights.adversarial={adversarial}")
    loop.student_step(0.5)
    logged = loop.round(0.5)
    assert ("synthesis/reward" in logged) == (reward > 0)
    assert ("synthesis/adversarial" in logged) == (adversarial > 0)


def test_the_label_term_leaves_out_images_of_another_class():
    loop = begun()
    batch = loop.method.source.sample()
    with torch.no_grad():
        answers = loop.setting.teacher(batch.images).argmax(dim=1)
    wrong, right = ((answers + shift) % 3 for shift in (1, 0))
    terms, logged, _ = loop.method.loss.compute(Batch(batch.images, wrong), 0.5)
    assert terms["label"] == 0.0
    assert logged["trusted"] == 0.0
    assert loop.method.loss.compute(Batch(batch.images, right), 0.5).terms["label"] > 0.0


@pytest.mark.parametrize("more", [(), ("options.augment_synthesis=true",), ("options.trainable_noise=true",)])
def test_the_store_keeps_the_latest_images(more):
    loop = make("csd", *more)
    made = []
    forward = loop.method.source.trainer.forward
    loop.method.source.trainer.forward = lambda *inputs: made.append(forward(*inputs)) or made[-1]
    loop.round(0.0)
    torch.testing.assert_close(loop.method.source.memory.read(torch.arange(12)), made[-1], atol=0.6 / 255, rtol=0)


def test_a_generator_gets_new_weights_after_its_rounds():
    loop = begun("options.rounds_per_generator=2", "options.generator.lr=0")
    distances = []
    for _ in range(4):
        before = loop.method.source.trainer.generator.project.weight.clone()
        loop.round(0.0)
        distances.append((before - loop.method.source.trainer.generator.project.weight).abs().max().item())
    assert [distance > 0 for distance in distances] == [True, False, True, False]


def test_trainable_noise_is_trained():
    loop = make("csd", "options.trainable_noise=true", "options.generator.steps=3")
    seen = []
    forward = loop.method.source.trainer.forward
    loop.method.source.trainer.forward = lambda noise, labels: (
        seen.append(noise.detach().clone()) or forward(noise, labels)
    )
    loop.round(0.0)
    first, second, third = seen
    assert 0 < (first - second).abs().max() < 0.1
    assert not torch.equal(second, third)


@pytest.mark.parametrize("size", [(1, 8, 8), (1, 8, 12)])
@pytest.mark.parametrize("every", ["true", "false"])
def test_views_are_rotated_images_with_joint_labels(size, every):
    loop = make("csd", f"options.head.every_rotation={every}", size=size)
    images, labels = torch.rand(8, *size), torch.arange(8) % 3
    views, joint = loop.method.loss.task.views(images, labels)
    turns = (0, 1, 2, 3) if size[1] == size[2] else (0, 2)
    assert views.shape == ((len(turns) if every == "true" else 1) * 8, *size)
    assert len(joint) == len(views)
    for place, (view, label) in enumerate(zip(views, joint, strict=True)):
        source = place % 8
        assert label // len(turns) == labels[source]
        assert torch.equal(view, torch.rot90(images[source], turns[label % len(turns)], dims=(1, 2)))
    assert joint.unique().max() < 3 * len(turns)


def test_images_that_are_not_square_work():
    loop = make("csd", size=(1, 8, 12))
    list(loop.events())
    assert loop.method.loss.task.head.out_features == 2 * 3
