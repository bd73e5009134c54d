"""Generated images as a source: a generator in training, its loss, its warm-up and a memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dfkd_cli.machine.world.world import World
from dfkd_cli.synthesis.generator_loss import Generated, GeneratorLoss
from dfkd_cli.synthesis.memory import Memory
from dfkd_cli.synthesis.trainer import GeneratorTrainer
from dfkd_cli.synthesis.warmup import Warmup
from dfkd_cli.training.method import Batch, Counts, ImageSource, WarmupPlan
from dfkd_cli.training.setting import Terms


class RoundMeasure(ABC):
    """What a method logs of the last batch of a round, besides the terms and the teacher's confidence."""

    @abstractmethod
    def __call__(self, generated: Generated) -> Terms:
        """Return scalars or vectors by name."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state to restore")


class GeneratedImages(ImageSource):
    """A generator trained against the teacher fills a memory, which the student's batches are drawn from."""

    def __init__(
        self,
        trainer: GeneratorTrainer,
        loss: GeneratorLoss,
        warmup: Warmup,
        memory: Memory,
        *,
        measure: RoundMeasure | None = None,
        notes: Iterable[str] = (),
    ):
        super().__init__(notes)
        self.trainer, self.loss, self.warm, self.memory, self.measure = trainer, loss, warmup, memory, measure

    def ready(self, progress: float) -> bool:
        """Return whether the warm-up is over."""
        return self.warm.over(progress)

    def warmup(self) -> WarmupPlan:
        """Return how many rounds the warm-up has."""
        return self.warm.plan

    def round(self, progress: float) -> Terms:
        """Train the generator and add its last batch to the memory."""
        warm = self.warm.over(progress)
        generated = self.trainer.round(partial(self.loss, progress=progress, warm=warm), progress)
        self.warm.count(progress)
        kept = self.memory.add(generated)
        shares = {
            f"synthesis/{name}_share": torch.full((), share, device=generated.images.device)
            for name, share in self.loss.shares(progress, warm).items()
        }
        return self._log(generated) | shares | kept | (self.measure(generated) if self.measure else {})

    def _log(self, generated: Generated) -> Terms:
        """Return the weighted terms, the teacher's confidence and, for requested labels, how often it predicts them."""
        confidence, classes = generated.teacher_logits.float().softmax(dim=1).max(dim=1)
        hits = {"synthesis/hit_rate": (classes == generated.labels).float().mean()}
        return {f"synthesis/{name}": value for name, value in generated.terms.items()} | {
            **(hits if self.trainer.config.conditional else {}),
            "synthesis/confidence": confidence.mean(),
        }

    def sample(self) -> Batch:
        """Return augmented images of the memory."""
        setting = self.trainer.setting
        batch = self.memory.sample(setting.batch_size, setting.rng)
        return batch._replace(images=setting.augment(batch.images))

    def fresh(self, count: int) -> Tensor:
        """Return new images of the generator."""
        return self.trainer.images(count)

    def shown(self, count: int) -> Tensor:
        """Return images spread evenly over the memory."""
        return self.memory.spread(count)

    def counts(self) -> Counts:
        """Return the number of generated images, those of the generator's training included, and of kept ones."""
        return Counts(generated=self.trainer.generated, kept=len(self.memory) * self.trainer.world.size)

    def reserved_bytes(self) -> int:
        """Return the memory that is reserved for images to come."""
        return self.memory.reserved_bytes()

    def remarks(self) -> list[str]:
        """Return a sentence when memory ran out over the generator's batches."""
        return self.trainer.parts.note("images are made")

    def state_dict(self) -> dict[str, Any]:
        """Return the generator, the warm-up, the memory and the measure."""
        return {
            "generator": self.trainer.state_dict(),
            "warmup": self.warm.state_dict(),
            "memory": self.memory.state_dict(),
            "measure": self.measure.state_dict() if self.measure else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.trainer.load_state_dict(state["generator"])
        self.warm.load_state_dict(state["warmup"])
        self.memory.load_state_dict(state["memory"])
        if self.measure:
            self.measure.load_state_dict(state["measure"])

    def reshared(self, states: Sequence[dict[str, Any]], world: World) -> dict[str, Any]:
        """Return the state with this process's share of the memory."""
        return states[0] | {"memory": self.memory.reshared([state["memory"] for state in states], world)}
