"""Accuracy of a classifier on labelled images, and its agreement with a teacher on them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from dfkd_cli.data.class_numbers import same_order, shown
from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.evaluation.confusion import Confusion
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.modes import evaluating


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on labelled images. Accuracies and agreement are fractions in [0, 1]."""

    images: int
    accuracy: float
    accuracy_top5: float | None  # None for 5 classes or fewer, where every prediction would count
    teacher_accuracy: float | None = None  # this and the following: None without a teacher
    relative_accuracy: float | None = None  # accuracy / teacher_accuracy; None if teacher_accuracy is 0
    agreement: float | None = None  # fraction of images for which both networks predict the same class


class _Counters(NamedTuple):
    """Numbers of images and of batches. Each is a scalar on the device, so that counting does not wait for it."""

    correct: Tensor
    correct_top5: Tensor
    teacher_correct: Tensor
    agreeing: Tensor
    not_finite: Tensor  # batches of logits, of either network, that hold NaN or infinity

    @classmethod
    def zeros(cls, device: torch.device) -> Self:
        return cls(*(torch.zeros((), dtype=torch.long, device=device) for _ in cls._fields))


def measure_accuracy(
    classifier: Classifier,
    data: LabelledImages,
    device: torch.device,
    teacher: Classifier | None = None,
    batch_size: int = 256,
    confusion: Confusion | None = None,
) -> Accuracy:
    """Return the accuracy of `classifier` on `data`, and that of `teacher` on the same images.

    Both networks are moved to `device`; each receives the images in its own input size and preprocessing.
    With a teacher, the predictions of both networks are added to `confusion`.

    Raises UsageError if the networks have different numbers of classes, and DfkdError if logits are not finite.
    """
    if teacher is not None:
        check_same_classes(classifier, teacher)
    networks = [classifier] if teacher is None else [classifier, teacher]
    for network in networks:
        network.to(device)
    counters = _Counters.zeros(device)
    with evaluating(*networks):
        for labels, *images in _labelled_batches(data, networks, batch_size, device):
            logits = [network(batch) for network, batch in zip(networks, images, strict=True)]
            classes = [network_logits.argmax(1) for network_logits in logits]
            _count(counters, logits, classes, labels)
            if confusion is not None and teacher is not None:
                confusion.add(classes[1], classes[0])
    return _accuracy(counters, len(data), classifier.spec.num_classes, teacher is not None)


def check_same_classes(network: Classifier, teacher: Classifier) -> None:
    """Raise UsageError if the networks have other tasks or numbers of classes, or their class names another order."""
    if teacher.spec.task != network.spec.task:
        raise UsageError(
            f"the network is {network.task.network}, the teacher {teacher.task.network}: they cannot be compared"
        )
    if teacher.spec.num_classes != network.spec.num_classes:
        raise UsageError(
            f"the network has {network.spec.num_classes} classes, the teacher {teacher.spec.num_classes}: "
            "their predictions cannot be compared"
        )
    if not same_order(network.spec.class_names, teacher.spec.class_names):
        raise UsageError(
            f"the network numbers its classes {shown(network.spec.class_names)}, the teacher "
            f"{shown(teacher.spec.class_names)}: their predictions cannot be compared"
        )


def _count(counters: _Counters, logits: list[Tensor], classes: list[Tensor], labels: Tensor) -> None:
    """Add one batch: logits [B, K] and predicted classes [B] of the classifier and then of the teacher, if any."""
    counters.correct.add_((classes[0] == labels).sum())
    if logits[0].shape[1] > 5:
        counters.correct_top5.add_((logits[0].topk(5).indices == labels[:, None]).sum())
    counters.teacher_correct.add_((classes[-1] == labels).sum())
    counters.agreeing.add_((classes[0] == classes[-1]).sum())
    for network_logits in logits:
        counters.not_finite.add_((~network_logits.isfinite()).any())


def _accuracy(counters: _Counters, images: int, num_classes: int, has_teacher: bool) -> Accuracy:
    """Read the counters from the device. Raises DfkdError if logits were not finite."""
    if int(counters.not_finite):
        raise DfkdError("the network's logits are not finite (NaN or infinity): its weights are damaged")
    correct, teacher_correct = int(counters.correct), int(counters.teacher_correct)
    return Accuracy(
        images=images,
        accuracy=correct / images,
        accuracy_top5=int(counters.correct_top5) / images if num_classes > 5 else None,
        teacher_accuracy=teacher_correct / images if has_teacher else None,
        relative_accuracy=correct / teacher_correct if has_teacher and teacher_correct else None,
        agreement=int(counters.agreeing) / images if has_teacher else None,
    )


def _labelled_batches(
    data: LabelledImages, networks: list[Classifier], batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, ...]]:
    """Yield labels [B] and one batch of the same images per network, on `device`.

    Image files are decoded once if they become the same images for all networks, and once per network otherwise.
    """
    specs = [network.spec for network in networks]
    if all(spec.same_images(specs[0]) for spec in specs):
        for images, labels in data.batches(batch_size, specs[0]):
            yield labels.to(device), *[images.to(device)] * len(networks)
        return
    for batches in zip(*(data.batches(batch_size, spec) for spec in specs), strict=True):
        yield batches[0][1].to(device), *(images.to(device) for images, _ in batches)
