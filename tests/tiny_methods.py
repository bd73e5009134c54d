"""Every method at a size that trains in milliseconds, for tests of the loop and of the contract."""

import copy
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from noise_pool import noise_pool
from torch import nn

from dfkd_cli.machine.runtime import Runtime
from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.methods import METHODS
from dfkd_cli.narrowing.narrowing import Narrowing
from dfkd_cli.narrowing.plan import plan_narrowing
from dfkd_cli.networks.classifier import Classifier, InputSpec, Origin
from dfkd_cli.networks.eager import EagerNetwork
from dfkd_cli.pool.source import PoolFolder
from dfkd_cli.recipe.recipe import Recipe, load_recipe
from dfkd_cli.synthesis.generator_loss import GeneratorLoss
from dfkd_cli.training.augmentation import Augmentation
from dfkd_cli.training.clock import StepClock
from dfkd_cli.training.distillation.stage_error import StageError
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.setting import Setting

SIZE, CLASSES = (1, 8, 8), 3
GENERATIVE = [name for name, method in METHODS.items() if not method.needs.pool]
# End of an option's dotted name -> a tiny value. Methods share sections, so a new one needs no entry.
TINY_VALUES: dict[str, int] = {
    "generator.batch_size": 12,
    "generator.steps": 2,
    "generator.width": 16,
    "generator.noise_size": 8,
    "warmup.rounds": 2,
    "store.size": 24,
    "buffer.size": 24,
    "feature.width": 4,
    "selection.keep": 16,
    "embedding.relation_images": 4,
    "options.kept_classes": 2,
}
TINY_TRAINING = ("train.steps=6", "train.batch_size=8", "train.round_every=2", "train.report_every=2")


def option_names(name: str) -> list[str]:
    """Return the dotted names of all options of a recipe."""
    return list(_leaves(asdict(load_recipe(name, []))["options"], "options"))


def _leaves(values: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        dotted = f"{prefix}.{key}"
        if isinstance(value, dict):
            yield from _leaves(value, dotted)
        else:
            yield dotted


def tiny_options(name: str) -> list[str]:
    """Return the overrides that make the options of a recipe tiny."""
    return [
        f"{option}={value}"
        for option in option_names(name)
        for ending, value in TINY_VALUES.items()
        if option.endswith(ending)
    ]


def weight_options(name: str, value: float) -> list[str]:
    """Return overrides that give every term of the generator's loss this weight."""
    return [
        f"{option}={value}"
        for option in option_names(name)
        if ".weights." in option or ".weights_without_batchnorm." in option
    ]


def tiny_recipe(name: str, *more: str) -> Recipe:
    """Return the recipe with tiny values and further overrides."""
    return load_recipe(name, [*TINY_TRAINING, *tiny_options(name), *more])


def tiny_classifier(seed: int, width: int, norm: bool = True, size: tuple[int, int, int] = SIZE) -> Classifier:
    """Return a convolution with a linear head, with random weights."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, width, 3), nn.BatchNorm2d(width) if norm else nn.Identity(), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, CLASSES))
    spec = InputSpec(size, mean=(0.4,), std=(0.3,), num_classes=CLASSES)
    return Classifier(EagerNetwork(module, input_size=size), spec, Origin("test", "test", None, None))


def wrapped(module: nn.Module, size: tuple[int, int, int] = SIZE) -> Classifier:
    """Return a module as a classifier of tiny images."""
    spec = InputSpec(size, mean=(0.4,), std=(0.3,), num_classes=CLASSES)
    return Classifier(EagerNetwork(module, input_size=size), spec, Origin("test", "test", None, None))


def deep_module(norm: bool = True, scale: float = 1.0) -> nn.Module:
    """Return a network with a residual block, whose inner channels can go, in evaluation mode.

    `scale` multiplies the filters before each BatchNorm and its statistics, which leaves the function as it is.
    """
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.ReLU(),
        ResidualBlock(8, 12, norm),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    ).eval()
    block: Any = module[3]
    for layer, norm_layer in ((module[0], module[1]), (block.widen, block.norm)) if norm else ():
        rescale(layer, norm_layer, scale)
    return module


def plain_module(norm: bool = True) -> nn.Module:
    """Return a network without residual connections, in evaluation mode."""
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 8), (8, 12)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs) if norm else nn.Identity()]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, CLASSES)).eval()


@torch.no_grad()
def rescale(layer: Any, norm: Any, scale: float) -> None:
    """Multiply the output of a layer, and adapt the BatchNorm that follows so that its own output stays."""
    for parameter in layer.parameters():
        parameter *= scale
    norm.running_mean *= scale
    norm.running_var *= scale**2
    norm.eps *= scale**2


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int, inner: int, norm: bool):
        super().__init__()
        self.widen = nn.Conv2d(channels, inner, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(inner) if norm else nn.Identity()
        self.narrow = nn.Conv2d(inner, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.relu(features + self.narrow(torch.relu(self.norm(self.widen(features)))))


def make(
    name: str,
    *more: str,
    norm: bool = True,
    student_norm: bool = True,
    student_width: int = 4,
    seed: int = 0,
    size: tuple[int, int, int] = SIZE,
    share: float | None = None,
    world: World = ALONE,
    scale: float = 1.0,
    plain: bool = False,
) -> Any:
    """Return the loop of a method before its first round: a Distillation. `Any`, because sources and losses differ.

    With a share the student begins as the teacher, whose filters are multiplied by `scale`, and is narrowed. A `plain`
    teacher has no residual block, so that the last channels go too.
    """
    recipe = tiny_recipe(name, *more)
    teacher = tiny_classifier(1, 8, norm, size).eval().requires_grad_(False)
    student, narrowing = tiny_classifier(2, student_width, student_norm, size), None
    if share is not None:
        module = plain_module(norm) if plain else deep_module(norm, scale)
        plan = plan_narrowing(module, torch.rand(2, *size), share, recipe.narrowing)
        student = wrapped(copy.deepcopy(module).train(), size)
        teacher = wrapped(module, size).eval().requires_grad_(False)
        narrowing = Narrowing(teacher, student, plan, recipe.narrowing, world)
    setting = Setting(
        teacher,
        student,
        batch_size=world.share(recipe.train.batch_size, "train.batch_size"),
        augmentation=Augmentation(flip=True, shift=0.125, mix=0.0, cut=0.0),
        runtime=Runtime(torch.device("cpu"), world=world),
        rng=torch.Generator().manual_seed(world.seed(seed)),
        pool=PoolFolder(noise_pool()) if METHODS[name].needs.pool else None,
        compare_stages=narrowing is None and recipe.train.stages > 0.0,
        taps=narrowing.taps if narrowing is not None and narrowing.taps.names else None,
    )
    torch.manual_seed(seed)
    method = METHODS[name].build(setting, recipe.options)
    hints = (
        narrowing.terms
        if narrowing is not None
        else StageError(setting, recipe.train.stages, recipe.train.stages_until)
    )
    return Distillation(method, setting, recipe.train, StepClock(recipe.train.steps), narrowing, hints)


def warm(loop: Any) -> Any:
    """Return the loop after its warm-up."""
    while not loop.method.source.ready(0.0):
        loop.round(0.0)
    return loop


def generator_loss(loop: Any) -> GeneratorLoss:
    """Return the loss of a method's generator, which only generative methods have."""
    return loop.method.source.loss


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of all tensors of a network."""
    return copy.deepcopy(network.state_dict())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Return whether two state dicts are equal bit for bit."""
    return all(torch.equal(one[name], other[name]) for name in one)
