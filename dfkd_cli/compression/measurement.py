"""Measure a trained student against its teacher."""

from dataclasses import dataclass

from dfkd_cli.compression.job import LoadedJob
from dfkd_cli.compression.make_calibration import BATCH_SIZE, CALIBRATION_IMAGES
from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.data.segmented import SegmentedImages
from dfkd_cli.evaluation.accuracy import Accuracy, measure_accuracy
from dfkd_cli.evaluation.agreement import Agreement, measure_agreement, with_logits
from dfkd_cli.evaluation.calibration import Calibration
from dfkd_cli.evaluation.confusion import Confusion, PixelConfusion
from dfkd_cli.evaluation.segmentation import Segmentation, measure_segmentation
from dfkd_cli.report.images import ImagesReport
from dfkd_cli.report.report import ON_EVALUATION_DATA
from dfkd_cli.training.engine import Distillation

SHOWN_DENSE = 32  # images whose pixels are compared when there are no others


@dataclass(frozen=True)
class Measurement:
    """Accuracy and agreement of a student at the end of its run."""

    accuracy: Accuracy | None  # None without evaluation data, and for a segmentation network
    agreement: (
        float | None
    )  # fraction of images or pixels in [0, 1] for which student and teacher predict the same class
    agreement_on: str  # the images on which it was measured
    confusion: Confusion  # of the predictions on these images
    calibrated: Agreement | None  # on the calibration images; None without them
    segmentation: Segmentation | None = None  # None without evaluation data, and for a classifier


def measure_student(loaded: LoadedJob, distillation: Distillation, calibration: Calibration | None) -> Measurement:
    """Measure on the evaluation data, or without such data the agreement on the calibration images.

    Without either, the agreement is measured on images that the student was trained on.
    """
    confusion = (PixelConfusion if _is_dense(loaded) else Confusion)(loaded.teacher.spec.num_classes)
    calibrated, device = None, loaded.runtime.device
    if calibration is not None:
        seen = confusion if loaded.data is None else None
        calibrated = measure_agreement(loaded.student, calibration.batches(BATCH_SIZE, device), seen)
    if isinstance(loaded.data, SegmentedImages) and isinstance(confusion, PixelConfusion):
        scored = measure_segmentation(loaded.student, loaded.data, device, loaded.teacher, confusion=confusion)
        return Measurement(None, scored.agreement, ON_EVALUATION_DATA, confusion, calibrated, scored)
    if isinstance(loaded.data, LabelledImages):
        accuracy = measure_accuracy(loaded.student, loaded.data, device, loaded.teacher, confusion=confusion)
        return Measurement(accuracy, accuracy.agreement, ON_EVALUATION_DATA, confusion, calibrated)
    measured = calibrated
    if measured is None:
        most = SHOWN_DENSE if _is_dense(loaded) else CALIBRATION_IMAGES
        shown = distillation.method.source.shown(most).split(BATCH_SIZE)
        pairs = with_logits(loaded.teacher, ((images, images) for images in shown))
        measured = measure_agreement(loaded.student, pairs, confusion)
    on = images_report(loaded, distillation).wording.measured_on
    return Measurement(None, measured.agreement, on, confusion, calibrated)


def _is_dense(loaded: LoadedJob) -> bool:
    return loaded.teacher.spec.task == "segmentation"


def images_report(loaded: LoadedJob, distillation: Distillation) -> ImagesReport:
    """Return how many images the run made or read."""
    counts = distillation.method.source.counts()
    return ImagesReport(generated=counts.generated, kept=counts.kept, pool=loaded.pool and str(loaded.pool))
