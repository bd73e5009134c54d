"""Measure a trained student against its teacher."""

from dataclasses import dataclass

from dfkd_cli.compression.job import LoadedJob
from dfkd_cli.evaluation.accuracy import Accuracy, measure_accuracy, measure_agreement
from dfkd_cli.evaluation.confusion import Confusion
from dfkd_cli.report.images import ImagesReport
from dfkd_cli.report.report import ON_EVALUATION_DATA
from dfkd_cli.training.engine import Distillation

FRESH_BATCHES = 4  # of images that the student has not seen, for the agreement without evaluation data


@dataclass(frozen=True)
class Measurement:
    """Accuracy and agreement of a student at the end of its run."""

    accuracy: Accuracy | None  # None without evaluation data
    agreement: float | None  # fraction of images in [0, 1] for which student and teacher predict the same class
    agreement_on: str  # the images on which it was measured
    confusion: Confusion  # of the predictions on these images


def measure_student(loaded: LoadedJob, distillation: Distillation) -> Measurement:
    """Measure on the evaluation data, or without such data the agreement on fresh images of the source."""
    confusion = Confusion(loaded.teacher.spec.num_classes)
    if loaded.data is not None:
        accuracy = measure_accuracy(
            loaded.student, loaded.data, loaded.runtime.device, loaded.teacher, confusion=confusion
        )
        return Measurement(accuracy, accuracy.agreement, ON_EVALUATION_DATA, confusion)
    batch_size = distillation.config.batch_size
    fresh = distillation.method.source.fresh(FRESH_BATCHES * batch_size).split(batch_size)
    agreement = measure_agreement(loaded.student, loaded.teacher, fresh, confusion)
    return Measurement(None, agreement, images_report(loaded, distillation).wording.measured_on, confusion)


def images_report(loaded: LoadedJob, distillation: Distillation) -> ImagesReport:
    """Return how many images the run made or read."""
    counts = distillation.method.source.counts()
    return ImagesReport(generated=counts.generated, kept=counts.kept, pool=loaded.pool and str(loaded.pool))
