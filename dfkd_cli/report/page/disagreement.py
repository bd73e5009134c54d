"""The classes for which the student's predictions differ from the teacher's: a map, and the most common differences."""

from collections.abc import Sequence
from typing import NamedTuple

from dfkd_cli.evaluation.confusion import Confusion
from dfkd_cli.report.page.gallery import class_label
from dfkd_cli.report.quantities import share

ALL_CLASSES = 50  # the map shows every class of up to so many
WORST_CLASSES = 30  # of more classes the map shows those with most disagreements
_MOST_COMMON = 8
_WITH_NUMBERS = 12  # columns at most whose cells are wide enough for a number


class Cell(NamedTuple):
    """The images for which the teacher predicts the row's class and the student the column's."""

    kind: str  # same, other (predictions), or none (no images)
    strength: float  # of the colour, in [0, 1]
    percent: float  # of the row's images
    title: str


class Row(NamedTuple):
    """The images of one class that the teacher predicts."""

    label: str
    cells: list[Cell]


class Disagreement(NamedTuple):
    """The disagreement of student and teacher."""

    total: int  # images
    num_classes: int
    columns: list[str]  # class numbers, and "other" if some classes are not shown
    rows: list[Row]
    all_shown: bool  # whether the map shows every class
    with_numbers: bool  # whether cells have room for a number
    most_common: list[tuple[str, str, str, str]]  # teacher's class, student's class, images, share


def disagreement(confusion: Confusion, names: Sequence[str] | None) -> Disagreement:
    """Return the map of classes and the most common differences; `names` are those of the classes, if known."""
    all_shown = confusion.num_classes <= ALL_CLASSES
    classes = list(range(confusion.num_classes)) if all_shown else confusion.most_confused(WORST_CLASSES)
    columns = [str(number) for number in classes] + ([] if all_shown else ["other"])
    total = sum(confusion.counts().values())
    return Disagreement(
        total=total,
        num_classes=confusion.num_classes,
        columns=columns,
        rows=[
            _row(number, counts, columns, names)
            for number, counts in zip(classes, confusion.matrix(classes), strict=True)
        ],
        all_shown=all_shown,
        with_numbers=len(columns) <= _WITH_NUMBERS,
        most_common=[
            (class_label(teacher, names), class_label(student, names), f"{images:,}", share(images / total))
            for teacher, student, images in confusion.differences()[:_MOST_COMMON]
        ],
    )


def _row(number: int, counts: list[int], columns: list[str], names: Sequence[str] | None) -> Row:
    total, label = sum(counts), class_label(number, names)
    cells = []
    for count, column in zip(counts, columns, strict=False):  # `counts` ends with classes that may not be shown
        fraction = count / total if total else 0.0
        kind = "none" if not count else "same" if column == str(number) else "other"
        title = f"teacher {label}, student {column}: {count:,} of {total:,}"
        # The square root keeps rare differences visible beside the common agreement.
        cells.append(Cell(kind, fraction**0.5, 100 * fraction, title))
    return Row(label, cells)
