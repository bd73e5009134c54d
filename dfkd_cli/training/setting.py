"""All that a method may know of the world: two networks, how to show them images, and the machine."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dfkd_cli.machine.runtime import Runtime
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.training.augmentation import Augmentation

Terms = dict[str, Tensor]  # named losses (scalars) or measurements (scalars, vectors), on the device


class Features(NamedTuple):
    """What a student can learn from a teacher besides logits, for a batch of B images."""

    logits: Tensor  # [B, K]
    embedding: Tensor | None  # what the last linear layer receives: [B, D]
    stages: tuple[Tensor, ...]  # the last feature map of each resolution, large to small: [B, C, H, W]


class Setting:
    """The networks, the random stream (on the device where it is used) and the machine that a method works with."""

    def __init__(
        self,
        teacher: Classifier,
        student: Classifier,
        *,
        batch_size: int,
        augmentation: Augmentation,
        runtime: Runtime,
        rng: torch.Generator,
        pool: Path | None = None,
    ):
        self.teacher, self.student = teacher, student
        self.batch_size, self.augmentation = batch_size, augmentation
        self.runtime, self.rng = runtime, rng
        self.pool = pool  # the user's folder of unlabelled pictures, for methods that need one
        self.expect(batch_size)
        self.teacher_forward = runtime.compile(teacher) if teacher.network.compilable else teacher
        self.student_forward = runtime.compile(student)
        self.teacher_features = (
            runtime.compile(_features_of(teacher)) if teacher.network.compilable else _features_of(teacher)
        )
        self.student_features = runtime.compile(_features_of(student))

    def expect(self, batch_size: int) -> None:
        """Prepares the teacher for batches of this size; others work too, but may be slower."""
        if self.runtime.compiles and (reason := self.teacher.network.make_compilable(batch_size)) is not None:
            note = f"the teacher is not compiled, which costs speed only: {reason}"
            if note not in self.runtime.notes:
                self.runtime.notes.append(note)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the teacher, without gradients, and of the student: [B, C, H, W] -> [B, K], [B, K]."""
        with self.runtime.autocast():
            with torch.no_grad():
                teacher_logits = self.teacher_forward(images)
            return teacher_logits, self.student_forward(images)

    def observe(self, images: Tensor) -> tuple[Features, Features]:
        """Features of the teacher, without gradients, and of the student, for images [B, C, H, W]."""
        with self.runtime.autocast():
            with torch.no_grad():
                teacher = self.teacher_features(images)
            return teacher, self.student_features(images)

    @torch.no_grad()
    def probe(self) -> tuple[Features, Features]:
        """What can be seen of teacher and student, for two black images; the student is as before."""
        black = torch.zeros(2, *self.teacher.spec.size, device=self.runtime.device)
        training = self.student.training
        self.student.eval()
        seen = _features_of(self.teacher)(black), _features_of(self.student)(black)
        self.student.train(training)
        return seen

    def augment(self, images: Tensor) -> Tensor:
        """One random view of each image, laid out for the networks."""
        return self.runtime.images(self.augmentation(images, self.rng))


def _features_of(classifier: Classifier) -> Callable[[Tensor], Features]:
    def features(images: Tensor) -> Features:
        seen = classifier.observe(images)
        return Features(seen.logits, seen.embedding, seen.stages)

    return features
