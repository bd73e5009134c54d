"""The images that a student learned from: their number, and the wording of texts about them."""

from dataclasses import dataclass
from typing import NamedTuple

from dfkd_cli.report.quantities import counted


class Wording(NamedTuple):
    """Texts about one kind of images."""

    name: str
    origin: str
    effort: str  # what the time of the image source was used for
    measured_on: str  # the images on which agreement is measured without evaluation data
    warning: str  # what a reader of the report must know before showing the images to others
    limit: str  # of a student that learned from these images
    privacy: str  # what the run's folder reveals, in Markdown


_SYNTHETIC = Wording(
    name="synthetic images",
    origin="synthetic images that were made from the teacher alone",
    effort="making images",
    measured_on="fresh synthetic images (not a measure of accuracy)",
    warning="Synthetic images need not be recognisable to people, and can still reveal properties of the teacher's "
    "training data.",
    limit="The student was trained on synthetic images only. Its behaviour on images that differ from the teacher's "
    "training data is unknown.",
    privacy="Synthetic images are made from the teacher, and can reveal properties of its training data. Treat "
    "`samples.png`, `report.html`, `calibration.safetensors` and the student as confidentially as the teacher.",
)
_CHOSEN = Wording(
    name="unlabelled images",
    origin="unlabelled images of a pool, with the teacher's predictions as targets",
    effort="choosing images",
    measured_on="images of the pool (not a measure of accuracy)",
    warning="They are unchanged images of the pool: do not show them to anyone who must not see the pool.",
    limit="The student was trained on images of one pool only, with the teacher's predictions as targets. Its "
    "behaviour on other images is unknown.",
    privacy="`samples.png`, `report.html` and `calibration.safetensors` contain images of the pool, and `selected.csv` "
    "lists its image files. "
    "Remove them before you publish this folder, unless the pool is public. Treat the student as confidentially as "
    "the teacher.",
)


@dataclass(frozen=True)
class ImagesReport:
    """Numbers of synthetic images that were made, and that were kept at the end of the run.

    With a pool: numbers of its images that were read, and that were chosen for training.
    """

    generated: int
    kept: int
    pool: str | None = None  # the folder of unlabelled images; None if the images are synthetic

    @property
    def wording(self) -> Wording:
        """The texts about this kind of images."""
        return _SYNTHETIC if self.pool is None else _CHOSEN

    def summary(self) -> str:
        """Return one sentence with both numbers."""
        made = "was" if self.generated == 1 else "were"
        if self.pool is None:
            kept = "was" if self.kept == 1 else "were"
            images = counted(self.generated, "synthetic image")
            return f"{images} {made} made; {self.kept:,} {kept} kept at the end."
        return (
            f"{counted(self.generated, 'image')} of the pool {made} read; the teacher chose {self.kept:,} of them, "
            "which selected.csv lists."
        )
