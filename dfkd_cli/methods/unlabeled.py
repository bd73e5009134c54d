"""Explicit and implicit knowledge from chosen unlabelled images: an EIKD-style reconstruction (arXiv:2302.08771)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.config.values import require
from dfkd_cli.distillation import losses
from dfkd_cli.distillation.embedding_loss import EmbeddingLoss, EmbeddingWeights
from dfkd_cli.errors import UsageError
from dfkd_cli.pool.selected import Selected
from dfkd_cli.pool.selection import Selection, SelectionConfig
from dfkd_cli.training.method import Batch, Counts, Filling, Method, Needs
from dfkd_cli.training.schedules import end_of_share
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class UnlabeledOptions:
    """The constants of the method; `recipes/unlabeled.yaml` says where each value comes from."""

    selection: SelectionConfig
    embedding: EmbeddingWeights
    temperature: float
    kept_classes: int  # of each prediction of the teacher, the likeliest; as many as there are: plain distillation

    def __post_init__(self) -> None:
        require(self, 1, "kept_classes")
        require(self, 0.01, "temperature")


class Unlabeled(Method):
    """The teacher chooses images from a folder; the student learns its predictions, embedding and relations on them."""

    needs = Needs(pool=True)
    options_type = UnlabeledOptions

    def __init__(self, setting: Setting, options: UnlabeledOptions):
        super().__init__(setting, options)
        if setting.pool is None:
            raise UsageError("recipe unlabeled learns from a folder of pictures; name it with --pool DIR")
        self.selection = Selection(setting, options.selection, setting.pool)
        if self.selection.keep < options.selection.keep:
            self.notes.append(f"At most {self.selection.keep:,} images are kept: cache_mb has no room for more.")
        self.selected: Selected | None = None
        self.first_done: float | None = None  # progress after this process's first chunk, in which all is compiled
        self.embedding_loss = EmbeddingLoss(setting, options.embedding)
        if self.embedding_loss.projection is None:
            self.notes.append("The embedding cannot be seen: the explicit and implicit terms are dropped, kd remains.")

    def ready(self, progress: float) -> bool:
        """Once the images are chosen."""
        return self.selected is not None

    def filling(self) -> Filling:
        """The pass over the pool, a batch at a time, and the choice."""
        return Filling(self.selection.rounds(), self.options.selection.reading_share)

    def refresh(self, progress: float) -> Terms:
        """Goes on with the pass over the pool; nothing is left to do after it."""
        if self.selected is not None:
            return {}
        if self.first_done is None and self.selection.seen:
            self.first_done = progress
        share = self.options.selection.reading_share
        in_time = self.first_done is None or progress < end_of_share(self.first_done, share)
        self.selected = self.selection.advance(in_time)
        if self.selected is None:
            return {}
        self.notes += self.selected.notes()
        counts = torch.tensor(self.selected.class_counts(), dtype=torch.float32, device=self.setting.runtime.device)
        return {"selection/class_counts": counts}

    def sample(self) -> Batch:
        """Augmented images from the selection, each as likely as any other."""
        return Batch(self.setting.augment(self._chosen().draw(self.setting.batch_size, self.setting.rng)))

    def student_loss(self, batch: Batch, progress: float) -> tuple[Terms, Terms]:
        """Class-dropped KL, and where embeddings can be seen their direction and their relations within the batch."""
        options = self.options
        teacher, student = self.setting.observe(batch.images)
        kd = losses.class_dropped_kl(student.logits, teacher.logits, options.kept_classes, options.temperature)
        return {"kd": kd.mean(), **self.embedding_loss(student, teacher, progress)}, {
            "agreement": losses.agreement(student.logits, teacher.logits).mean(),
            "class_drop/mass": losses.dropped_mass(teacher.logits, options.kept_classes).mean(),
        }

    def fresh_images(self, count: int) -> Tensor:
        """The best images of the pool that were not chosen; when too few are left over, chosen ones."""
        return self._chosen().unseen(count)

    def shown_images(self, count: int) -> Tensor:
        """Images spread evenly over the selection."""
        return self._chosen().spread(count)

    def counts(self) -> Counts:
        """How many images of the pool were seen, and how many are learned from."""
        kept = self.selection.candidates if self.selected is None else self.selected.chosen
        return Counts(self.selection.seen if self.selected is None else self.selected.seen, len(kept))

    def extra_modules(self) -> Iterable[nn.Module]:
        """The projection."""
        return [module for module in [self.embedding_loss.projection] if module is not None]

    def files(self) -> dict[str, str]:
        """Which images were chosen, and why."""
        return {"selected.csv": self._chosen().to_csv()}

    def _chosen(self) -> Selected:
        if self.selected is None:
            raise ValueError("the pool is not read yet")
        return self.selected

    def state_dict(self) -> dict[str, Any]:
        """The chosen images; before they are chosen nothing, and a resumed run reads the pool anew."""
        return {"selected": self.selected and self.selected.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.selected = state["selected"] and Selected.from_state(state["selected"], self.setting.runtime.device)
        if self.selected is not None:
            self.notes += self.selected.notes()
