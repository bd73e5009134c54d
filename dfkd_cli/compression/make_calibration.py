"""Make the calibration images of a run: images that the student was not trained on, with the teacher's logits."""

import math

import torch

from dfkd_cli.config.version import __version__
from dfkd_cli.evaluation.calibration import Calibration, Kind
from dfkd_cli.networks.classifier import Classifier, InputSpec
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.training.method import ImageSource

CALIBRATION_IMAGES = 1000
LARGEST_BYTES = 2**27  # of the images; 1,000 images of 3x211x211 fit
LARGEST_DENSE_BYTES = 2**26  # of the images with logits of all pixels; 26 images of 3x192x256 with 12 classes fit
BATCH_SIZE = 250


def make_calibration(teacher: Classifier, source: ImageSource, kind: Kind, student_sha256: str) -> Calibration | None:
    """Return about 1,000 fresh images of a trained method's source, or None if it has no unseen image.

    There are fewer of them when they are large, or when a pool has fewer images that were not selected.
    """
    count = max(1, min(CALIBRATION_IMAGES, _affordable(teacher.spec)))
    images = (source.fresh(count).float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    if len(images) == 0:
        return None
    with evaluating(teacher):
        logits = torch.cat([teacher(batch.float() / 255.0).float() for batch in images.split(BATCH_SIZE)])
    return Calibration(images.cpu(), logits.cpu(), kind, student_sha256, __version__)


def _affordable(spec: InputSpec) -> int:
    """Return how many images fit into the file."""
    if spec.task == "classification":
        return LARGEST_BYTES // math.prod(spec.size)
    return LARGEST_DENSE_BYTES // (math.prod(spec.size[1:]) * (spec.size[0] + 4 * spec.num_classes))
