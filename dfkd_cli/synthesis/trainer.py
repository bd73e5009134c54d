"""A generator in training: it renews a batch of images under a loss, one round at a time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dfkd_cli.config.values import require, require_share
from dfkd_cli.errors import UsageError
from dfkd_cli.machine.world.batchnorm import synchronise
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.networks.pixels import share_of_sides
from dfkd_cli.synthesis.class_modulation import Conditioning
from dfkd_cli.synthesis.generator import Generator
from dfkd_cli.synthesis.generator_loss import Generated, joined
from dfkd_cli.training.batch_parts import BatchParts
from dfkd_cli.training.schedules import cosine
from dfkd_cli.training.setting import Setting

Objective = Callable[[Tensor, Tensor | None], Generated]  # images [B, C, H, W], labels [B] of a conditional generator


@dataclass(frozen=True)
class GeneratorConfig:
    """The generator and how it is trained."""

    batch_size: int  # images per step
    steps: int  # optimizer steps per round; the images of the last one are kept
    lr: float  # Adam, at the start of the training
    final_lr: float  # share of `lr` that is left at its end
    noise_size: int
    width: int  # channels of the last block; the first has twice as many
    conditional: bool = False  # whether the generator receives class labels
    conditioning: Conditioning = "concat"  # how a conditional generator receives them
    image_share: float = 1.0  # share of the height and width of the teacher's images, for segmentation networks

    def __post_init__(self) -> None:
        require(self, 1, "steps", "noise_size", "width")
        require(self, 2, "batch_size")  # BatchNorm statistics need two images
        require(self, 0, "lr")
        require_share(self, "final_lr", "image_share")


def generated_spec(spec: InputSpec, share: float) -> InputSpec:
    """Return the spec of images with this share of the height and width, in multiples of 32 pixels.

    Raises UsageError for a classifier, which needs whole images.
    """
    if share == 1.0:
        return spec
    if spec.task != "segmentation":
        raise UsageError(f"options.generator.image_share is {share:g}: only segmentation networks take parts of images")
    channels, *sides = spec.size
    height, width = share_of_sides(sides, share)
    return replace(spec, size=(channels, height, width))


class GeneratorTrainer:
    """A generator with its optimizer. Labels of a conditional generator are balanced over the classes.

    `trainable_noise` optimises one batch of noise per round together with the generator. `restart_every` gives the
    generator new random weights after that many rounds; 0 never does.
    """

    def __init__(
        self, setting: Setting, config: GeneratorConfig, *, trainable_noise: bool = False, restart_every: int = 0
    ):
        if config.conditional and setting.teacher.spec.task == "segmentation":
            raise UsageError("options.generator.conditional is true: only for classifiers, with one class per image")
        self.world = setting.runtime.world
        self.batch_size = self.world.share(config.batch_size, "options.generator.batch_size")  # of this process
        setting.expect(self.batch_size)
        self.setting, self.config = setting, config
        self.spec = generated_spec(setting.teacher.spec, config.image_share)
        self.trainable_noise, self.restart_every = trainable_noise, restart_every
        self.generator = setting.runtime.place(self._new_generator())
        self.world.equalise(self.generator)
        if setting.sync_batchnorm:
            synchronise(self.generator, self.world)
        self.optimizer = self._adam(self.generator.parameters())
        self.forward = setting.runtime.compile(self.generator)
        self.parts = BatchParts(setting.runtime.device, self.world)
        self.generated = 0  # images of all processes
        self.rounds = 0

    def _new_generator(self) -> Generator:
        config = self.config
        return Generator(self.spec, config.noise_size, config.width, config.conditional, config.conditioning)

    def _adam(self, trained: Iterable[Tensor]) -> torch.optim.Adam:
        fused = self.setting.runtime.device.type == "cuda"  # one kernel for all tensors
        return torch.optim.Adam(trained, self.config.lr, betas=(0.5, 0.999), fused=fused or None)

    def round(self, objective: Objective, progress: float) -> Generated:
        """Train the generator for `config.steps` steps and return the batch of the last one, detached.

        Each step draws new noise unless it is trainable.
        """
        if self.restart_every and self.rounds % self.restart_every == 0:
            self._restart()
        rate = cosine(progress, self.config.lr, self.config.lr * self.config.final_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.generator.train()
        self.rounds += 1
        return self._train_with_noise(objective) if self.trainable_noise else self._train(objective)

    def _restart(self) -> None:
        # Into the same tensors, so that compiled code stays valid.
        self.generator.load_state_dict(self._new_generator().state_dict())
        self.world.equalise(self.generator)
        self.optimizer = self._adam(self.generator.parameters())

    def _train(self, objective: Objective) -> Generated:
        for _ in range(self.config.steps - 1):
            self._step(objective, *self.draw(self.batch_size))
        return self._step(objective, *self.draw(self.batch_size))

    def _train_with_noise(self, objective: Objective) -> Generated:
        noise, labels = self.draw(self.batch_size)
        noise_optimizer = self._adam([noise.requires_grad_(True)])
        for _ in range(self.config.steps - 1):
            self._step(objective, noise, labels)
            noise_optimizer.step()
        return self._step(objective, noise, labels)

    def draw(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Return noise [count, noise_size], and balanced labels [count] for a conditional generator."""
        rng, device = self.setting.rng, self.setting.runtime.device
        noise = torch.randn(count, self.config.noise_size, generator=rng, device=device)
        if not self.config.conditional:
            return noise, None
        classes = self.setting.teacher.spec.num_classes
        first = torch.randint(classes, (1,), generator=rng, device=device)
        return noise, (first + torch.arange(count, device=device)) % classes

    def _step(self, objective: Objective, noise: Tensor, labels: Tensor | None) -> Generated:
        generated = self.parts.fit(len(noise), lambda count: self._gradients(objective, noise, labels, count))
        self.optimizer.step()
        self.generated += len(noise) * self.world.size
        return generated

    def _gradients(self, objective: Objective, noise: Tensor, labels: Tensor | None, parts: int) -> Generated:
        """Leave the gradients of the mean loss of all processes in the generator, and in trainable noise."""
        generated = self._sum_over_parts(objective, noise, labels, parts)
        self.world.average_gradients(list(self.generator.parameters()))
        if noise.grad is not None and self.world.several:
            noise.grad /= self.world.size
        return generated

    def _sum_over_parts(self, objective: Objective, noise: Tensor, labels: Tensor | None, parts: int) -> Generated:
        self.optimizer.zero_grad(set_to_none=True)
        noise.grad = None
        requested = [None] * parts if labels is None else labels.tensor_split(parts)
        generated: list[Generated] = []
        for some, their in zip(noise.tensor_split(parts), requested, strict=True):
            with self.setting.runtime.autocast():
                one = objective(self.forward(some, their), their)
            share = len(some) / len(noise)
            if one.terms:  # empty while the only term is one that waits for the student
                (share * torch.stack(list(one.terms.values())).sum()).backward()
            generated.append(one.detach())
        return generated[0] if parts == 1 else joined(generated)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """Return images [count, C, H, W] in [0, 1] to learn from, made with the generator's running statistics."""
        self.generator.eval()
        noise, labels = self.draw(count)
        with self.setting.runtime.autocast():
            images = self.forward(noise, labels)
        self.generated += count * self.world.size
        return images

    @torch.no_grad()
    def images(self, count: int) -> Tensor:
        """Return new images [count, C, H, W] in [0, 1] with balanced labels, in the generator's present mode."""
        batches = []
        for start in range(0, count, self.batch_size):
            noise, labels = self.draw(self.batch_size)
            with self.setting.runtime.autocast():
                batches.append(self.generator(noise, labels)[: count - start])
        return torch.cat(batches)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generated": self.generated,
            "rounds": self.rounds,
            "parts": self.parts.count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generated, self.rounds, self.parts.count = state["generated"], state["rounds"], state["parts"]
