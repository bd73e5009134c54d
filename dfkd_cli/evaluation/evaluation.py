"""The document of `dfkd evaluate --json`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of a network. Accuracies and agreement are fractions in [0, 1]; null: not measured."""

    images: int  # that accuracy and agreement were measured on
    exif_oriented: int | None = None  # image files with an EXIF orientation other than upright; None without files
    accuracy: float | None  # None without labelled images
    accuracy_top5: float | None = None  # None for 5 classes or fewer too, where every prediction would count
    teacher_accuracy: float | None = None
    relative_accuracy: float | None = None  # accuracy / teacher_accuracy; None if teacher_accuracy is 0 too
    agreement: float | None = None  # fraction of images for which both networks predict the same class
    agreement_on: str | None = None  # the images, in words
    kl: float | None = None  # mean KL(teacher || student) in nats; without labelled images only
    parameters: int
    file_bytes: int | None  # of the weights; None if they are not in one file
    macs: int | None = None  # multiply-accumulate operations for one image; without labelled images only
    latency_ms: float | None = None  # median, for one image; without labelled images only
    sha256: str | None = None  # of the weights file
    report_matches: bool | None = None  # true: the report.json beside it is that of this student; None without one
    remark: str | None = None  # what the figures do not show
