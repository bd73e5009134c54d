"""What is `csd`'s own: the head beside the student, the reward, the rounds and the labels."""

import copy

import pytest
import torch
from test_methods import make
from torch import nn

from dfkd_cli.training.method import Batch


def begun(*more: str):
    """A method with its bank filled, and its run."""
    method, run = make("csd", *more)
    while not method.ready(0.0):
        run._refresh(0.0)
    return method, run


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def changed(before: dict[str, torch.Tensor], network: nn.Module) -> bool:
    return any(not torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_head_learns_and_never_teaches_the_student():
    method, _ = begun()
    student, head = method.setting.student, method.task.head
    student.train()
    before_student, before_head = state(student), state(head)
    batch = method.sample()
    logged = method.task.learn(batch.images, batch.labels, torch.ones(8))
    assert changed(before_head, head)
    assert not changed(before_student, student)  # neither weights nor BatchNorm statistics
    assert all(parameter.grad is None for parameter in student.parameters())
    assert student.training
    assert logged["head/loss"] > 0


@pytest.mark.parametrize("every", ["true", "false"])
def test_the_head_learns_only_from_images_that_count(every):
    heads = []
    for others in (0, 1):
        method, _ = begun(f"options.head.every_rotation={every}")
        batch, weights = method.sample(), torch.tensor([1.0, 0.0] * 4)
        labels = torch.where(weights == 1, batch.labels, (batch.labels + others) % 3)
        logged = method.task.learn(batch.images, labels, weights)
        heads.append((state(method.task.head), logged["head/loss"]))
    torch.testing.assert_close(heads[0], heads[1])


def test_labels_that_the_teacher_does_not_see_teach_the_head_nothing():
    learned = {}
    for masked in ("true", "false"):
        method, _ = begun(f"options.mask_labels={masked}")
        images = method.sample().images
        with torch.no_grad():
            wrong = (method.setting.teacher(images).argmax(dim=1) + 1) % 3
        before = state(method.task.head)
        method.task.optimizer.param_groups[0]["weight_decay"] = 0.0
        method.student_loss(Batch(images, wrong), 0.5)
        learned[masked] = changed(before, method.task.head)
    assert learned == {"true": False, "false": True}


def test_the_head_does_not_depend_on_the_size_of_the_embedding():
    method, run = begun()
    run._student_step(0.5)
    images, labels = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    method.setting.student.eval()
    with torch.no_grad():
        hardness = method.task.hardness(images, labels)
        inner = method.task._embedding
        method.task._embedding = lambda views: 50.0 * inner(views)
        torch.testing.assert_close(method.task.hardness(images, labels), hardness, rtol=1e-3, atol=1e-3)


def test_the_student_is_the_same_with_and_without_a_head_beside_it():
    """With the reward off no head is trained; with a reward of almost nothing the images are the same as well."""
    students = []
    for reward in ("0", "1e-30"):
        method, run = make("csd", f"options.reward={reward}")
        list(run.run())
        students.append(state(method.setting.student))
    assert all(torch.equal(value, students[1][name]) for name, value in students[0].items())


def test_there_is_no_reward_before_the_head_has_learned():
    _, run = begun()
    assert "synthesis/reward" not in run._refresh(0.5)
    run._student_step(0.5)
    assert run._refresh(0.5)["synthesis/reward"] < 0


def test_the_generator_raises_the_heads_error():
    method, run = begun("options.reward_cap=1000")
    run._student_step(0.5)
    images, labels = torch.rand(12, 1, 8, 8, requires_grad=True), torch.arange(12) % 3
    method.setting.student.eval()
    hardness = method.task.hardness(images, labels).mean()
    (gradient,) = torch.autograd.grad(hardness, images)
    moved = images.detach() + 0.1 * gradient / gradient.norm()
    assert method.task.hardness(moved, labels).mean() > hardness


def test_the_reward_of_an_image_ends_at_the_cap():
    method, run = begun("options.reward_cap=0.01", "options.reward=3.0")
    run._student_step(0.5)
    expected = -3.0 * 0.01 * torch.tensor(method.task.chance)
    torch.testing.assert_close(run._refresh(0.5)["synthesis/reward"], expected)


@pytest.mark.parametrize("reward", [0.0, 1.0])
@pytest.mark.parametrize("adversarial", [0.0, 1.0])
def test_reward_and_adversary_are_independent(reward, adversarial):
    _, run = begun(f"options.reward={reward}", f"options.weights.adversarial={adversarial}")
    run._student_step(0.5)
    logged = run._refresh(0.5)
    assert ("synthesis/reward" in logged) == (reward > 0)
    assert ("synthesis/adversarial" in logged) == (adversarial > 0)


def test_the_label_term_leaves_out_what_the_teacher_sees_otherwise():
    method, _ = begun()
    batch = method.sample()
    with torch.no_grad():
        answers = method.setting.teacher(batch.images).argmax(dim=1)
    wrong, right = ((answers + shift) % 3 for shift in (1, 0))
    terms, logged = method.student_loss(Batch(batch.images, wrong), 0.5)
    assert terms["label"] == 0.0
    assert logged["trusted"] == 0.0
    assert method.student_loss(Batch(batch.images, right), 0.5)[0]["label"] > 0.0


@pytest.mark.parametrize("more", [(), ("options.augment_synthesis=true",), ("options.trainable_noise=true",)])
def test_the_bank_keeps_what_the_generator_made_last(more):
    method, run = make("csd", *more)
    made = []
    forward = method.synthesizer.forward
    method.synthesizer.forward = lambda *inputs: made.append(forward(*inputs)) or made[-1]
    run._refresh(0.0)
    torch.testing.assert_close(method.store.read(torch.arange(12)), made[-1], atol=0.6 / 255, rtol=0)


def test_a_generator_starts_anew_when_its_rounds_are_over():
    method, run = begun("options.rounds_per_generator=2", "options.generator.lr=0")
    distances = []
    for _ in range(4):
        before = method.synthesizer.generator.project.weight.clone()
        run._refresh(0.0)
        distances.append((before - method.synthesizer.generator.project.weight).abs().max().item())
    assert [distance > 0 for distance in distances] == [True, False, True, False]


def test_trainable_noise_is_trained():
    method, run = make("csd", "options.trainable_noise=true", "options.generator.steps=3")
    seen = []
    forward = method.synthesizer.forward
    method.synthesizer.forward = lambda noise, labels: seen.append(noise.detach().clone()) or forward(noise, labels)
    run._refresh(0.0)
    first, second, third = seen
    assert 0 < (first - second).abs().max() < 0.1
    assert not torch.equal(second, third)


@pytest.mark.parametrize("size", [(1, 8, 8), (1, 8, 12)])
@pytest.mark.parametrize("every", ["true", "false"])
def test_views_are_the_turned_images_with_joint_labels(size, every):
    method, _ = make("csd", f"options.head.every_rotation={every}", size=size)
    images, labels = torch.rand(8, *size), torch.arange(8) % 3
    views, joint = method.task.views(images, labels)
    turns = (0, 1, 2, 3) if size[1] == size[2] else (0, 2)
    assert views.shape == ((len(turns) if every == "true" else 1) * 8, *size)
    assert len(joint) == len(views)
    for place, (view, label) in enumerate(zip(views, joint, strict=True)):
        source = place % 8
        assert label // len(turns) == labels[source]
        assert torch.equal(view, torch.rot90(images[source], turns[label % len(turns)], dims=(1, 2)))
    assert joint.unique().max() < 3 * len(turns)


def test_images_that_are_not_square_work():
    method, run = make("csd", size=(1, 8, 12))
    list(run.run())
    assert method.task.head.out_features == 2 * 3
