"""No step of any method waits for the host or mixes devices, which would be slow or fail on a GPU. Needs no GPU.

PyTorch's fake tensors have a device, a type and a shape but no values. An operation on tensors of two devices is an
error, and so is one that needs a value in Python, such as `.item()`, `if tensor:` or a mask as an index.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tiny_methods import CLASSES, SIZE, tiny_classifier, tiny_recipe
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from dfkd_cli.machine.runtime import Runtime
from dfkd_cli.methods import METHODS
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.pool.selected import Selected
from dfkd_cli.pool.source import PoolFolder, PoolImages
from dfkd_cli.training.augmentation import Augmentation
from dfkd_cli.training.clock import StepClock
from dfkd_cli.training.distillation.stage_error import StageError
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.event import Event
from dfkd_cli.training.setting import Setting

ELSEWHERE = torch.device("lazy")  # a device without a backend
STEPS = 3
IMAGES = 16


class RuntimeElsewhere(Runtime):
    def autocast(self):
        return nullcontext()  # not offered for this device


class RandomElsewhere(torch.Generator):
    """A generator on the CPU, which fake tensors need, with the name of the other device."""

    device = ELSEWHERE


def moved(module: nn.Module, *_: object, **__: object) -> nn.Module:
    """Replace `nn.Module.to`, which cannot move fake tensors."""
    for layer in module.modules():
        for tensors in cast(list[dict[str, Any]], [layer._parameters, layer._buffers]):
            tensors.update({name: None if tensor is None else _elsewhere(tensor) for name, tensor in tensors.items()})
    return module


def _elsewhere(tensor: Tensor) -> Tensor:
    there = torch.empty(tensor.shape, dtype=tensor.dtype, device=ELSEWHERE)
    return nn.Parameter(there, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there


def selected() -> Selected:
    """Make the selection of a pool, which the host computes."""
    images = torch.empty(IMAGES, *SIZE, dtype=torch.uint8, device=ELSEWHERE)
    slots = torch.arange(IMAGES, device=ELSEWHERE)
    return Selected(images, slots, slots, [], [], [], IMAGES, 0, (), {}, 0, True, CLASSES, False)


def make(name: str, teacher: Classifier, student: Classifier, *more: str) -> Distillation:
    recipe, runtime = tiny_recipe(name, f"train.steps={STEPS}", *more), RuntimeElsewhere(ELSEWHERE)
    setting = Setting(
        runtime.place(teacher),
        runtime.place(student),
        batch_size=recipe.train.batch_size,
        augmentation=Augmentation(flip=True, shift=0.125, mix=0.3, cut=0.5),
        runtime=runtime,
        rng=RandomElsewhere(),
        pool=PoolFolder(Path(__file__).parent) if METHODS[name].needs.pool else None,
        compare_stages=True,
    )
    method = METHODS[name].build(setting, recipe.options)
    if isinstance(method.source, PoolImages):
        method.source.selected = selected()
    return Distillation(method, setting, recipe.train, StepClock(STEPS), hints=StageError(setting, 10.0, 0.5))


@pytest.fixture
def run_of(monkeypatch):
    """Return a function that makes a loop on the other device from a method and values of its recipe."""
    # An event is meant to transfer its numbers to the host.
    monkeypatch.setattr(Distillation, "_event", lambda self, phase, _: Event(phase, self.step, 0.0, 0, {}))
    monkeypatch.setattr(nn.Module, "to", moved)

    def run_of(name: str, norm: bool = True, *more: str, width: int = 4) -> Distillation:
        with _disable_current_modes():
            teacher, student = tiny_classifier(1, 8, norm).eval().requires_grad_(False), tiny_classifier(2, width)
        return make(name, teacher, student, *more)

    with FakeTensorMode():
        yield run_of


@pytest.mark.parametrize("norm", [True, False], ids=["batchnorm", "no batchnorm"])
@pytest.mark.parametrize("name", METHODS)
def test_no_step_waits_for_the_host_or_mixes_devices(run_of, name, norm):
    loop = run_of(name, norm)
    assert [*loop.events()][-1].step == STEPS
    assert loop.method.source.fresh(4).device == loop.method.source.shown(4).device == ELSEWHERE


@pytest.mark.parametrize("name", METHODS)
def test_no_step_of_a_student_that_shares_stages_waits_or_mixes_devices(run_of, name):
    loop = run_of(name, width=8)
    assert loop.setting.compared
    assert [*loop.events()][-1].step == STEPS


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ssd", "priority=true buffer.eviction=mastered inversion.contested_only=true inversion.bn_form=kl"),
        (
            "ssd",
            "buffer.eviction=easiest inversion.bn_form=relative generator.conditional=true "
            "generator.conditioning=product_batchnorm",
        ),
        ("curriculum", "pacing=hard pacing_level=batch divergence=l1 relative_difficulty=false"),
        ("curriculum", "pacing=soft"),
        ("csd", "generator.conditional=true rounds_per_generator=1 trainable_noise=true augment_synthesis=true"),
        ("csd", "head.every_rotation=true head.normalize_logits=true labels.mask=false"),
        ("cgdd", "generator.conditioning=batchnorm on_class_only=false attention.form=mean sure_enough=0.9"),
        ("cgdd", "generator.conditioning=product_batchnorm labels.mask=false"),
    ],
)
def test_no_step_waits_or_mixes_devices_with_other_options(run_of, name, values):
    loop = run_of(name, True, *(f"options.{value}" for value in values.split()))
    assert [*loop.events()][-1].step == STEPS


@pytest.mark.parametrize("name", METHODS)
def test_a_run_continues_on_the_device_from_a_checkpoint_of_the_host(run_of, name):
    loop, resumed = run_of(name), run_of(name)
    next(event for event in loop.events() if event.phase == "training")
    resumed.load_state_dict(tree_map_only(Tensor, Tensor.cpu, loop.state_dict()))
    assert [*resumed.events()][-1].step == STEPS
    assert {tensor.device for tensor in tree_leaves(resumed.trained.state_dict())} == {ELSEWHERE}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (lambda images: images * float(images.mean()), DataDependentOutputException),
        (lambda images: images[images.mean((1, 2, 3)) > 0.5], DynamicOutputShapeException),
        (lambda images: images + torch.zeros(SIZE), RuntimeError),  # a class that older versions of torch do not have
    ],
    ids=["item", "mask", "device"],
)
def test_a_method_that_waits_or_mixes_devices_is_detected(run_of, fault, error):
    loop = run_of("ssd")
    sample = loop.method.source.sample
    loop.method.source.sample = lambda: sample()._replace(images=fault(sample().images))
    with pytest.raises(error, match=r"device|_local_scalar_dense|aten\.nonzero"):
        list(loop.events())
