"""What a student learned from, in numbers and in words: synthetic images, or pictures chosen from a user's pool."""

from dataclasses import dataclass
from typing import NamedTuple


class Wording(NamedTuple):
    """How texts for people speak of the images."""

    name: str
    origin: str
    effort: str  # what the time before training went to
    measured_on: str  # where agreement was measured when there was no evaluation data
    warning: str  # what to know before looking at them, or showing them to others
    limit: str  # of a student that learned from them
    privacy: str  # what the folder of the run gives away, in Markdown


_SYNTHETIC = Wording(
    name="synthetic images",
    origin="synthetic images made from the teacher alone",
    effort="making images",
    measured_on="fresh synthetic images (not a measure of accuracy)",
    warning="They need not look like anything to people, and can still reveal properties of the teacher's training "
    "data.",
    limit="The student has seen synthetic images only. What it does on pictures unlike the teacher's training data is "
    "unknown.",
    privacy="Synthetic images are made from what the teacher remembers of its training data, and can reveal properties "
    "of it. Treat `samples.png`, `report.html` and the student as you would treat the teacher.",
)
_CHOSEN = Wording(
    name="unlabelled pictures",
    origin="unlabelled pictures that the teacher chose from a pool and named",
    effort="choosing pictures",
    measured_on="pictures of the pool (not a measure of accuracy)",
    warning="They are pictures of the pool as it is: show them to nobody who must not see the pool.",
    limit="The student has seen pictures of a pool only, under the names that the teacher gave them. What it does on "
    "others is unknown.",
    privacy="`samples.png` and `report.html` show pictures of the pool, and `selected.csv` names its files. Take them "
    "out before you publish this folder, unless the pool is public. Treat the student as you would treat the teacher.",
)


@dataclass(frozen=True)
class ImagesReport:
    """Synthetic images: how many were made, and how many of them the student was trained on at the end.

    With a pool: how many of its pictures were seen, and how many of them the student was trained on.
    """

    generated: int
    kept: int
    pool: str | None = None  # the folder of unlabelled pictures; None where all images are synthetic

    @property
    def wording(self) -> Wording:
        """How to speak of these images."""
        return _SYNTHETIC if self.pool is None else _CHOSEN

    def counted(self) -> str:
        """How many there were, and were left: one sentence."""
        if self.pool is None:
            return f"{self.generated:,} synthetic images were made; {self.kept:,} were kept at the end."
        return (
            f"{self.generated:,} unlabelled pictures of the pool were seen; the teacher chose {self.kept:,}, which "
            "selected.csv lists."
        )
