"""Scores of a segmentation network, from the counts of (true class, predicted class) over all pixels."""

from torch import Tensor

from dfkd_cli.evaluation.evaluation import SegmentationScores


def class_ious(matrix: Tensor) -> Tensor:
    """Return the intersection over union of each class: counts [true class, predicted class] -> [K] in float64."""
    hits = matrix.diagonal().double()
    return hits / (matrix.sum(dim=0) + matrix.sum(dim=1) - hits).clamp_min(1.0)


def scores(matrix: Tensor) -> SegmentationScores:
    """Return the scores of the counts [K, K] of (true class, predicted class)."""
    of_class = matrix.sum(dim=1).double()
    present, hits = of_class > 0, matrix.diagonal().double()
    return SegmentationScores(
        miou=float(class_ious(matrix)[present].mean()),
        pixel_accuracy=float(hits.sum() / of_class.sum()),
        class_accuracy=float((hits[present] / of_class[present]).mean()),
    )
