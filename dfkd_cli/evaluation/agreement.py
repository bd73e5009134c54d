"""Agreement of a student with its teacher, on images without labels."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.evaluation.confusion import Confusion
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.modes import evaluating


@dataclass(frozen=True)
class Agreement:
    """How far the predictions of a student are those of its teacher."""

    images: int
    agreement: float  # fraction of images or pixels, in [0, 1], for which both networks predict the same class
    kl: float  # mean divergence KL(teacher || student) of these predicted probabilities, in nats, at least 0


def measure_agreement(
    student: Classifier, batches: Iterable[tuple[Tensor, Tensor]], confusion: Confusion | None = None
) -> Agreement:
    """Return the agreement on batches of images [B, C, H, W] in [0, 1] and the teacher's logits for them.

    It is a fraction of images for logits [B, K], and of pixels for logits [B, K, H, W]. Both are on the student's
    device. The predictions of both networks are added to `confusion`. Raises UsageError if there is no image, and
    DfkdError if logits of the student are not finite.
    """
    device = student.mean.device
    agreeing, divergence = torch.zeros((), dtype=torch.long, device=device), torch.zeros((), device=device)
    total, answers = 0, 0
    with evaluating(student):
        for images, teacher_logits in batches:
            logits, teacher_logits = student(images).float(), teacher_logits.float()
            student_classes, teacher_classes = logits.argmax(1), teacher_logits.argmax(1)
            agreeing += (student_classes == teacher_classes).sum()
            divergence += F.kl_div(
                logits.log_softmax(1), teacher_logits.log_softmax(1), reduction="sum", log_target=True
            )
            total += len(images)
            answers += teacher_classes.numel()
            if confusion is not None:
                confusion.add(teacher_classes, student_classes)
    if not total:
        raise UsageError("agreement needs at least one image")
    if not divergence.isfinite():
        raise DfkdError("the network's logits are not finite (NaN or infinity): its weights are damaged")
    return Agreement(total, int(agreeing) / answers, max(float(divergence) / answers, 0.0))


def with_logits(teacher: Classifier, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the student's images and the teacher's logits, for batches of the student's and the teacher's images."""
    for images, teacher_images in batches:
        with evaluating(teacher):
            logits = teacher(teacher_images)
        yield images, logits
