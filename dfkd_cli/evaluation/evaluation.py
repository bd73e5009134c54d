"""The document of `dfkd evaluate --json`."""

from dataclasses import dataclass

from dfkd_cli.data.contents import Contents
from dfkd_cli.networks.classifier import Preprocessing


@dataclass(frozen=True)
class ClassScore:
    """How well one class is found, over all counted pixels of all images."""

    name: str
    pixels: int  # of the class in the masks
    iou: float | None  # intersection over union; None if the masks do not have the class
    teacher_iou: float | None = None  # None without a teacher too


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of one network. Classes that the masks do not have are left out of both means."""

    miou: float  # mean of the IoU of the classes
    pixel_accuracy: float  # fraction of counted pixels with the class of the mask
    class_accuracy: float  # mean over classes of the fraction of their pixels that are found


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of a network. Accuracies and agreement are fractions in [0, 1]; null: not measured."""

    images: int  # that accuracy and agreement were measured on
    exif_oriented: int | None = None  # image files with an EXIF orientation other than upright; None without files
    accuracy: float | None  # None without labelled images
    accuracy_top5: float | None = None  # None for 5 classes or fewer too, where every prediction would count
    teacher_accuracy: float | None = None
    relative_accuracy: float | None = None  # accuracy / teacher_accuracy; None if teacher_accuracy is 0 too
    agreement: float | None = None  # fraction of images or pixels for which both networks predict the same class
    agreement_on: str | None = None  # the images, in words
    kl: float | None = None  # mean KL(teacher || student) in nats; without labelled images only
    preprocessing: Preprocessing  # how image files became images of the input size
    parameters: int
    file_bytes: int | None  # of the weights; None if they are not in one file
    macs: int | None = None  # multiply-accumulate operations for one image; without labelled images only
    latency_ms: float | None = None  # median, for one image; without labelled images only
    sha256: str | None = None  # of the weights file
    report_matches: bool | None = None  # true: the report.json beside it is that of this student; None without one
    data: Contents | None = None  # what was read of --data or --images
    remark: str | None = None  # what the figures do not show
    task: str = "classification"  # or "segmentation"
    pixels: int | None = None  # that were counted; this and the following: with masks only
    scores: SegmentationScores | None = None
    teacher_scores: SegmentationScores | None = None
    relative_miou: float | None = None  # mean IoU / the teacher's; None if that is 0 too
    classes: tuple[ClassScore, ...] | None = None
