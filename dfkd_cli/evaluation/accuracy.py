"""How good a classifier is: its accuracy on labelled images, and how often it agrees with its teacher on any."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.evaluation.confusion import Confusion
from dfkd_cli.networks.classifier import Classifier


@dataclass(frozen=True)
class Evaluation:
    """What was measured on labelled images. Accuracies and agreement are shares in 0..1."""

    images: int
    accuracy: float
    accuracy_top5: float | None  # None with 5 classes or fewer: every answer would count
    teacher_accuracy: float | None = None  # this and the following: None without a teacher
    relative_accuracy: float | None = None  # accuracy / teacher_accuracy; None when the teacher is never right
    agreement: float | None = None  # share of images for which both name the same class


def evaluate(
    classifier: Classifier,
    data: LabelledImages,
    device: torch.device,
    teacher: Classifier | None = None,
    precision: str = "fp32",
    batch_size: int = 256,
    confusion: Confusion | None = None,
) -> Evaluation:
    """Accuracy of `classifier` on `data`, and of `teacher` on the same pictures.

    Moves both to `device`; a teacher that takes another size gets the pictures in that size. `precision` is fp32
    or bf16. With a teacher, `confusion` is told both networks' answers. Raises UsageError for a teacher of another
    class count and DfkdError when logits are not finite.
    """
    if teacher is not None and teacher.spec.num_classes != classifier.spec.num_classes:
        seen = f"{classifier.spec.num_classes} classes, the teacher {teacher.spec.num_classes}"
        raise UsageError(f"the network has {seen}: they do not tell the same classes apart")
    networks = [classifier] if teacher is None else [classifier, teacher]
    # right, right among the best 5, teacher right, both agree, batches with logits that are not finite. They stay on
    # the device: reading one per batch would make it wait.
    counts = torch.zeros(5, dtype=torch.long, device=device)
    with _evaluating(*networks, device=device), _autocast(device, precision):
        for labels, *images in _labelled_batches(data, networks, batch_size, device):
            logits = [network(batch) for network, batch in zip(networks, images, strict=True)]
            answers = [network_logits.argmax(1) for network_logits in logits]
            counts[0] += (answers[0] == labels).sum()
            if classifier.spec.num_classes > 5:
                counts[1] += (logits[0].topk(5).indices == labels[:, None]).sum()
            counts[2] += (answers[-1] == labels).sum()
            counts[3] += (answers[0] == answers[-1]).sum()
            counts[4] += sum((~network_logits.isfinite()).any().long() for network_logits in logits)
            if confusion is not None and teacher is not None:
                confusion.add(answers[1], answers[0])
    right, right_top5, teacher_right, agreeing, broken = counts.tolist()
    if broken:
        raise DfkdError("the network's logits are not finite (NaN or infinite): its weights are damaged")
    total = len(data)
    return Evaluation(
        images=total,
        accuracy=right / total,
        accuracy_top5=right_top5 / total if classifier.spec.num_classes > 5 else None,
        teacher_accuracy=None if teacher is None else teacher_right / total,
        relative_accuracy=None if teacher is None or not teacher_right else right / teacher_right,
        agreement=None if teacher is None else agreeing / total,
    )


def agreement(
    student: Classifier, teacher: Classifier, image_batches: Iterable[Tensor], confusion: Confusion | None = None
) -> float:
    """Share of images, 0..1, for which student and teacher name the same class; no labels needed.

    The images [B, C, H, W] are in [0, 1] and already on the device of both networks; `confusion` is told both
    networks' answers. Raises UsageError without any image.
    """
    agreeing, total = torch.zeros((), dtype=torch.long, device=student.mean.device), 0
    with _evaluating(student, teacher, device=student.mean.device):
        for images in image_batches:
            answers = student(images).argmax(1), teacher(images).argmax(1)
            agreeing += (answers[0] == answers[1]).sum()
            total += len(images)
            if confusion is not None:
                confusion.add(answers[1], answers[0])
    if not total:
        raise UsageError("agreement needs at least one image")
    return int(agreeing) / total


def _labelled_batches(
    data: LabelledImages, networks: list[Classifier], batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, ...]]:
    """Labels [B], then one batch of the same images per network; read twice only where the sizes differ."""
    sizes = [network.spec.size for network in networks]
    if len(set(sizes)) == 1:
        for images, labels in data.batches(batch_size, sizes[0]):
            yield labels.to(device), *[images.to(device)] * len(networks)
        return
    for batches in zip(*(data.batches(batch_size, size) for size in sizes), strict=True):
        yield batches[0][1].to(device), *(images.to(device) for images, _ in batches)


@contextmanager
def _evaluating(*networks: Classifier, device: torch.device) -> Iterator[None]:
    """The networks on `device`, in evaluation mode and without gradients; their modes are restored afterwards."""
    # Layer by layer: a student may hold some of its layers in evaluation mode while it trains.
    modes = [(layer, layer.training) for network in networks for layer in network.modules()]
    for network in networks:
        network.to(device).eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, training in modes:
            layer.training = training


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)
