"""The generator in training: it renews a batch of images step by step under a loss that the method states."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfkd_cli.config.values import require, require_share
from dfkd_cli.synthesis.class_modulation import Conditioning
from dfkd_cli.synthesis.generator import Generator
from dfkd_cli.synthesis.inversion import Inverted, joined
from dfkd_cli.training.batch_parts import BatchParts
from dfkd_cli.training.schedules import cosine
from dfkd_cli.training.setting import Setting

Objective = Callable[[Tensor, Tensor | None], Inverted]  # images [B, C, H, W], labels [B] when conditional


@dataclass(frozen=True)
class GeneratorConfig:
    """The generator and how it is trained."""

    batch_size: int  # images per step
    steps: int  # updates per renewal; the images of the last one are kept
    lr: float  # Adam, at the start of the training
    final_lr: float  # share of `lr` left at its end
    noise_size: int
    width: int  # channels of the last block; the first has twice as many
    conditional: bool  # whether the generator is told which class to draw
    conditioning: Conditioning = "concat"  # and how

    def __post_init__(self) -> None:
        require(self, 1, "steps", "noise_size", "width")
        require(self, 2, "batch_size")  # BatchNorm statistics of one image mean nothing
        require(self, 0, "lr")
        require_share(self, "final_lr")


class Synthesizer:
    """A generator with its optimiser. Labels, when it takes any, are balanced over the classes."""

    def __init__(self, setting: Setting, config: GeneratorConfig):
        self.setting, self.config = setting, config
        self.generator = setting.runtime.place(self._new_generator())
        self.optimizer = self._adam(self.generator.parameters())
        self.forward = setting.runtime.compile(self.generator)
        self.parts = BatchParts()
        self.generated = 0

    def _new_generator(self) -> Generator:
        config = self.config
        spec = self.setting.teacher.spec
        return Generator(spec, config.noise_size, config.width, config.conditional, config.conditioning)

    def _adam(self, trained: Iterable[Tensor]) -> torch.optim.Adam:
        return torch.optim.Adam(trained, self.config.lr, betas=(0.5, 0.999))

    def restart(self) -> None:
        """Forgets what the generator has learned."""
        # Into the same tensors, so that what is compiled stays valid.
        self.generator.load_state_dict(self._new_generator().state_dict())
        self.optimizer = self._adam(self.generator.parameters())

    def draw(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Fresh noise [count, noise_size], and class-balanced labels [count] for a conditional generator."""
        rng, device = self.setting.rng, self.setting.runtime.device
        noise = torch.randn(count, self.config.noise_size, generator=rng, device=device)
        if not self.config.conditional:
            return noise, None
        classes = self.setting.teacher.spec.num_classes
        first = torch.randint(classes, (1,), generator=rng, device=device)
        return noise, (first + torch.arange(count, device=device)) % classes

    def renew(self, objective: Objective, progress: float) -> Inverted:
        """Trains the generator for some steps on fresh noise each; returns the last batch, detached."""
        self._prepare(progress)
        for _ in range(self.config.steps - 1):
            self._step(objective, *self.draw(self.config.batch_size))
        return self._step(objective, *self.draw(self.config.batch_size))

    def invert(self, objective: Objective, progress: float) -> Inverted:
        """Trains the generator and one batch of noise together; returns the batch of the last step, detached."""
        self._prepare(progress)
        noise, labels = self.draw(self.config.batch_size)
        noise_optimizer = self._adam([noise.requires_grad_(True)])
        for _ in range(self.config.steps - 1):
            self._step(objective, noise, labels)
            noise_optimizer.step()
        return self._step(objective, noise, labels)

    def _prepare(self, progress: float) -> None:
        rate = cosine(progress, self.config.lr, self.config.lr * self.config.final_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.generator.train()

    def _step(self, objective: Objective, noise: Tensor, labels: Tensor | None) -> Inverted:
        made = self.parts.fit(len(noise), lambda count: self._gradients(objective, noise, labels, count))
        self.optimizer.step()
        self.generated += len(noise)
        return made

    def _gradients(self, objective: Objective, noise: Tensor, labels: Tensor | None, parts: int) -> Inverted:
        """Leaves the gradients of the loss in the generator, and in the noise if that is trained."""
        self.optimizer.zero_grad(set_to_none=True)
        noise.grad = None
        asked = [None] * parts if labels is None else labels.tensor_split(parts)
        made: list[Inverted] = []
        for some, their in zip(noise.tensor_split(parts), asked, strict=True):
            with self.setting.runtime.autocast():
                one = objective(self.forward(some, their), their)
            share = len(some) / len(noise)
            if one.terms:  # none while the only one is a student's that has not begun
                (share * torch.stack(list(one.terms.values())).sum()).backward()
            made.append(one.detach())
        return made[0] if parts == 1 else joined(made)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """Images [count, C, H, W] in [0, 1] to learn from, by the generator's running statistics."""
        self.generator.eval()
        noise, labels = self.draw(count)
        with self.setting.runtime.autocast():
            images = self.forward(noise, labels)
        self.generated += count
        return images

    @torch.no_grad()
    def images(self, count: int) -> Tensor:
        """Fresh images [count, C, H, W] in [0, 1] with balanced labels, as the generator stands."""
        batches = []
        for start in range(0, count, self.config.batch_size):
            noise, labels = self.draw(self.config.batch_size)
            with self.setting.runtime.autocast():
                batches.append(self.generator(noise, labels)[: count - start])
        return torch.cat(batches)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit by bit."""
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generated": self.generated,
            "parts": self.parts.count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generated, self.parts.count = state["generated"], state["parts"]
