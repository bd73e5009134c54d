"""An auxiliary task on the student's embedding: predict class and rotation of an image (arXiv:2307.04542).

The head of the paper has two layers and begins anew in every round; this one has one layer and is kept.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_cli.config.values import require, require_share
from dfkd_cli.errors import RecipeMismatchError
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.training.distillation.projection import embedding_size
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class RotationConfig:
    """The auxiliary head and its training."""

    every_rotation: bool  # each image in all rotations, as published; off: in one, at a quarter of the cost
    lr: float  # SGD, constant
    momentum: float
    weight_decay: float
    scale: float  # of the head's logits
    normalize_logits: bool  # to length 1 before scaling, as in the authors' code

    def __post_init__(self) -> None:
        require(self, 0, "lr", "weight_decay", "scale")
        require_share(self, "momentum")


class RotationTask:
    """A linear head on the student's embedding that predicts the joint label (class, rotation).

    Square images have four rotations; others have two, by 0 and 180 degrees, which keep their shape.
    """

    def __init__(self, setting: Setting, config: RotationConfig):
        """Make the head. Raises RecipeMismatchError for a student without a visible embedding."""
        width = embedding_size(setting.student)
        if width is None:
            raise RecipeMismatchError(
                f"student {setting.student.origin.arch} has no visible last linear layer; choose another --student"
            )
        self.setting, self.config, self.world = setting, config, setting.runtime.world
        height, side = setting.teacher.spec.size[1:]
        self.turns = (0, 1, 2, 3) if height == side else (0, 2)
        self._begin(width)

    def _begin(self, width: int) -> None:
        """Make a head for embeddings of this size, and its optimizer."""
        config = self.config
        head = nn.Linear(width, self.setting.teacher.spec.num_classes * len(self.turns))
        self.head = head.to(self.setting.runtime.device).requires_grad_(False)
        self.world.equalise(self.head)
        self.optimizer = torch.optim.SGD(
            self.head.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay
        )
        self.steps = 0  # of the head's training

    def follow_student(self) -> None:
        """Begin anew if the student's embedding has another size by now."""
        width = embedding_size(self.setting.student)
        if width is not None and width != self.head.in_features:
            self._begin(width)

    @property
    def chance(self) -> float:
        """Return the cross-entropy in nats of a uniform prediction."""
        return math.log(self.head.out_features)

    def views(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return rotated images with their joint labels: [B, C, H, W], [B] -> [V B, C, H, W], [V B].

        V is the number of rotations with `every_rotation`. Without it V is 1: each rotation gets an equal share of the
        batch.
        """
        count = len(self.turns)
        if self.config.every_rotation:
            shown = [(images, labels)] * count
        else:
            shown = list(zip(images.tensor_split(count), labels.tensor_split(count), strict=True))
        turned = [torch.rot90(group, turn, dims=(2, 3)) for turn, (group, _) in zip(self.turns, shown, strict=True)]
        joint = [count * classes + place for place, (_, classes) in enumerate(shown)]
        return torch.cat(turned), torch.cat(joint)

    def hardness(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy in nats of each view, with gradients of the images: [B, C, H, W], [B] -> [V B].

        The student must be frozen.
        """
        views, joint = self.views(images, labels)
        return F.cross_entropy(self._logits(self._embedding(views)), joint, reduction="none")

    def train(self, images: Tensor, labels: Tensor, weights: Tensor) -> Terms:
        """Train the head for one step on images [B, C, H, W] with labels [B] and weights [B]; return values to log.

        The student's weights and BatchNorm statistics do not change.
        """
        views, joint = self.views(images, labels)
        with evaluating(self.setting.student), self.setting.runtime.autocast():
            embedding = self._embedding(views)
        self.head.requires_grad_(True)
        logits = self._logits(embedding)
        weights = weights.repeat(len(views) // len(images))
        counted = self.world.mean(weights.sum()).clamp_min(1.0 / self.world.size)
        loss = weights @ F.cross_entropy(logits, joint, reduction="none") / counted
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.world.average_gradients(list(self.head.parameters()))
        self.optimizer.step()
        self.head.requires_grad_(False)
        self.steps += 1
        return {"head/loss": loss, "head/accuracy": weights @ (logits.argmax(dim=1) == joint).float() / counted}

    def _embedding(self, images: Tensor) -> Tensor:
        return self.setting.student_features(self.setting.runtime.images(images)).embedding

    def _logits(self, embedding: Tensor) -> Tensor:
        # A student without BatchNorm can have large embeddings, with which SGD of a constant rate diverges.
        logits = self.head(F.layer_norm(embedding.float(), embedding.shape[1:]))
        return self.config.scale * (F.normalize(logits, dim=1) if self.config.normalize_logits else logits)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
