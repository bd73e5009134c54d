"""Mean IoU and accuracies of a segmentation network on images with masks, and its agreement with a teacher."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_cli.data.mask_files import UNCOUNTED
from dfkd_cli.data.segmented import SegmentedImages
from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.evaluation.accuracy import check_same_classes
from dfkd_cli.evaluation.confusion import PixelConfusion
from dfkd_cli.evaluation.evaluation import ClassScore, SegmentationScores
from dfkd_cli.evaluation.segmentation_scores import class_ious, scores
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.networks.tasks import resized

LARGEST_BATCH = 16  # images; the logits of more pixels at once would only take memory


@dataclass(frozen=True)
class Segmentation:
    """A segmentation network on images with masks, beside its teacher. All figures are fractions in [0, 1]."""

    images: int
    pixels: int  # that count
    student: SegmentationScores
    classes: tuple[ClassScore, ...]
    teacher: SegmentationScores | None = None
    relative_miou: float | None = None  # of the student's to the teacher's; None if that is 0
    agreement: float | None = None  # fraction of counted pixels for which both networks predict the same class


def measure_segmentation(
    classifier: Classifier,
    data: SegmentedImages,
    device: torch.device,
    teacher: Classifier | None = None,
    batch_size: int = LARGEST_BATCH,
    confusion: PixelConfusion | None = None,
) -> Segmentation:
    """Return the scores of `classifier` on `data`, and those of `teacher` on the same images.

    Logits are resized to the masks, never the masks. With a teacher, the predictions of both networks for the counted
    pixels are added to `confusion`. Raises UsageError when no pixel counts, and DfkdError if logits are not finite.
    """
    networks = [classifier] if teacher is None else [classifier, teacher]
    if teacher is not None:
        check_same_classes(classifier, teacher)
    for network in networks:
        network.to(device)
    tables = [PixelConfusion(classifier.spec.num_classes) for _ in networks]
    compared = PixelConfusion(classifier.spec.num_classes) if confusion is None else confusion
    specs = {network.spec.size: network.spec for network in networks}
    read = [data.batches(batch_size, spec) for spec in specs.values()]
    with evaluating(*networks):
        for batches in zip(*read, strict=True):
            masks = batches[0][1]
            shown = dict(zip(specs, (images for images, _ in batches), strict=True))
            logits = [network(shown[network.spec.size].to(device)) for network in networks]
            if not all(bool(each.isfinite().all()) for each in logits):
                raise DfkdError("the network's logits are not finite (NaN or infinity): its weights are damaged")
            for place, mask in enumerate(masks):
                _count(tables, compared, [each[place : place + 1] for each in logits], mask.to(device))
    return _summary(data, tables, compared)


def _count(tables: list[PixelConfusion], compared: PixelConfusion, logits: list[Tensor], mask: Tensor) -> None:
    """Add one image: logits [1, K, H, W] of the classifier and then of the teacher, if any, and the mask [h, w]."""
    counted = mask != UNCOUNTED
    found = [resized(each, (mask.shape[0], mask.shape[1])).argmax(dim=1)[0][counted] for each in logits]
    for table, classes in zip(tables, found, strict=True):
        table.add(mask[counted], classes)
    if len(found) == 2:
        compared.add(found[1], found[0])


def _summary(data: SegmentedImages, tables: list[PixelConfusion], compared: PixelConfusion) -> Segmentation:
    matrices = [table.table() for table in tables]
    pixels = int(matrices[0].sum())
    if not pixels:
        raise UsageError(f"{data.where}: no pixel of its masks counts; check --ignore-index")
    ious = [class_ious(matrix) for matrix in matrices]
    present = matrices[0].sum(dim=1).tolist()
    listed = [
        [None if count == 0 else value for value, count in zip(each.tolist(), present, strict=True)] for each in ious
    ]
    has_teacher = len(tables) == 2
    student, teacher = scores(matrices[0]), scores(matrices[1]) if has_teacher else None
    return Segmentation(
        images=len(data),
        pixels=pixels,
        student=student,
        classes=tuple(
            ClassScore(name, int(present[place]), listed[0][place], listed[1][place] if has_teacher else None)
            for place, name in enumerate(data.class_names)
        ),
        teacher=teacher,
        relative_miou=student.miou / teacher.miou if teacher is not None and teacher.miou else None,
        agreement=float(compared.table().diagonal().sum() / pixels) if has_teacher else None,
    )
