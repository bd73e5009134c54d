"""A task beside the one the student is taught: which class, and turned how far? It shows what the student knows."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_cli.config.values import require, require_share
from dfkd_cli.errors import RecipeMismatchError
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class RotationConfig:
    """The auxiliary head and how it is trained."""

    every_rotation: bool  # show each image in all rotations, as published; off: in one, at a quarter of the cost
    lr: float  # SGD, constant
    momentum: float
    weight_decay: float
    scale: float  # of the head's logits
    normalize_logits: bool  # to length 1 before the scale, as in the authors' code

    def __post_init__(self) -> None:
        require(self, 0, "lr", "weight_decay", "scale")
        require_share(self, "momentum")


class RotationTask:
    """A linear head on the student's embedding that names the joint (class, rotation) of images (arXiv:2307.04542).

    Square images have four rotations; others two, by 0 and 180 degrees, which keep their shape.
    """

    def __init__(self, setting: Setting, config: RotationConfig):
        """Raises RecipeMismatchError for a student whose embedding cannot be seen."""
        spec, embedding = setting.teacher.spec, setting.probe()[1].embedding
        if embedding is None:
            raise RecipeMismatchError(f"student {setting.student.origin.arch} has no last linear layer to learn beside")
        self.setting, self.config = setting, config
        self.turns = (0, 1, 2, 3) if spec.size[1] == spec.size[2] else (0, 2)
        head = nn.Linear(embedding.shape[1], spec.num_classes * len(self.turns))
        self.head = head.to(setting.runtime.device).requires_grad_(False)
        self.optimizer = torch.optim.SGD(
            self.head.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay
        )
        self.steps = 0  # of training; before the first the head knows nothing

    @property
    def chance(self) -> float:
        """Cross-entropy in nats of a guess among all joint labels."""
        return math.log(self.head.out_features)

    def views(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Turned images with their joint labels: [B, C, H, W], [B] -> [V B, C, H, W], [V B], with V = 1 unless every.

        Without `every_rotation` each turn gets an equal part of the batch.
        """
        parts = len(self.turns)
        if self.config.every_rotation:
            shown = [(images, labels)] * parts
        else:
            shown = list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True))
        turned = [torch.rot90(part, turn, dims=(2, 3)) for turn, (part, _) in zip(self.turns, shown, strict=True)]
        joint = [parts * part + place for place, (_, part) in enumerate(shown)]
        return torch.cat(turned), torch.cat(joint)

    def hardness(self, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in nats of each view, for a frozen student: [B, C, H, W], [B] -> [V B], with gradients."""
        views, joint = self.views(images, labels)
        return F.cross_entropy(self._logits(self._embedding(views)), joint, reduction="none")

    def learn(self, images: Tensor, labels: Tensor, weights: Tensor) -> Terms:
        """One step of the head alone: the student's weights and BatchNorm statistics stay as they are.

        `weights` [B] say how much each image [B, C, H, W] and its label [B] count.
        """
        views, joint = self.views(images, labels)
        with evaluating(self.setting.student), self.setting.runtime.autocast():
            embedding = self._embedding(views)
        self.head.requires_grad_(True)
        logits = self._logits(embedding)
        weights = weights.repeat(len(views) // len(images))
        counted = weights.sum().clamp_min(1.0)
        loss = weights @ F.cross_entropy(logits, joint, reduction="none") / counted
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.head.requires_grad_(False)
        self.steps += 1
        return {"head/loss": loss, "head/accuracy": weights @ (logits.argmax(dim=1) == joint).float() / counted}

    def _embedding(self, images: Tensor) -> Tensor:
        return self.setting.student_features(self.setting.runtime.images(images)).embedding

    def _logits(self, embedding: Tensor) -> Tensor:
        # Without BatchNorm in the student an embedding has any size; a large one drives SGD of a constant rate away.
        logits = self.head(F.layer_norm(embedding.float(), embedding.shape[1:]))
        return self.config.scale * (F.normalize(logits, dim=1) if self.config.normalize_logits else logits)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit by bit."""
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
