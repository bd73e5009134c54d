"""All that a method may know of the world: two networks, how to show them images, and the machine."""

import torch
from torch import Tensor

from dfkd_cli.augmentation import Augmentation
from dfkd_cli.classifier import Classifier
from dfkd_cli.runtime import Runtime

Terms = dict[str, Tensor]  # named losses (scalars) or measurements (scalars, vectors), on the device


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
    ):
        self.teacher, self.student = teacher, student
        self.batch_size, self.augmentation = batch_size, augmentation
        self.runtime, self.rng = runtime, rng
        self.teacher_forward = runtime.compile(teacher) if teacher.network.compilable else teacher
        self.student_forward = runtime.compile(student)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the teacher, without gradients, and of the student: [B, C, H, W] -> [B, K], [B, K]."""
        with self.runtime.autocast():
            with torch.no_grad():
                teacher_logits = self.teacher_forward(images)
            return teacher_logits, self.student_forward(images)

    def augment(self, images: Tensor) -> Tensor:
        """One random view of each image, laid out for the networks."""
        return self.runtime.images(self.augmentation(images, self.rng))
