"""Counts of the student's predicted classes for each class that the teacher predicts, for images or pixels."""

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor


class Difference(NamedTuple):
    """A pair of classes that the two networks predict for the same images or pixels, and the number of these."""

    teacher: int  # class
    student: int  # class
    images: int


class Confusion:
    """Counts of the pairs of predicted classes. Memory grows with the number of images, not with classes squared."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.pairs: list[Tensor] = []  # teacher's class * num_classes + student's class, on the networks' device

    def add(self, teacher_classes: Tensor, student_classes: Tensor) -> None:
        """Add the classes [B] that each network predicts for the same images. Does not wait for the device."""
        self.pairs.append(teacher_classes * self.num_classes + student_classes)

    def counts(self) -> dict[tuple[int, int], int]:
        """Return the number of images for each (teacher's class, student's class) that occurred.

        Waits for the device.
        """
        if not self.pairs:
            return {}
        pairs, counts = torch.cat(self.pairs).unique(return_counts=True)
        return {
            divmod(pair, self.num_classes): count for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        }

    def differences(self) -> list[Difference]:
        """Return the pairs of different classes, the most common first."""
        found = [
            Difference(teacher, student, n) for (teacher, student), n in self.counts().items() if teacher != student
        ]
        return sorted(found, key=lambda difference: (-difference.images, difference))

    def most_confused(self, limit: int) -> list[int]:
        """Return the classes that occur in most disagreements, at most `limit`, in ascending order."""
        involved: Counter[int] = Counter()
        for difference in self.differences():
            involved[difference.teacher] += difference.images
            involved[difference.student] += difference.images
        order = sorted(range(self.num_classes), key=lambda number: (-involved[number], number))
        return sorted(order[:limit])

    def matrix(self, classes: list[int]) -> list[list[int]]:
        """Return one row per teacher's class in `classes`: images per student's class, in the same order.

        The last number of a row counts the images whose student's class is not in `classes`.
        """
        counts = self.counts()
        rows = {number: [0] * (len(classes) + 1) for number in classes}
        place = {number: index for index, number in enumerate(classes)}
        for (teacher, student), images in counts.items():
            if teacher in rows:
                rows[teacher][place.get(student, len(classes))] += images
        return [rows[number] for number in classes]


class PixelConfusion(Confusion):
    """The same counts for pixels. Memory grows with the square of the classes, not with the number of pixels."""

    def __init__(self, num_classes: int):
        super().__init__(num_classes)
        self.flat: Tensor | None = None  # [K * K], on the networks' device

    def add(self, teacher_classes: Tensor, student_classes: Tensor) -> None:
        """Add the classes that each network predicts for the same pixels, of any shape."""
        pairs = (teacher_classes * self.num_classes + student_classes).flatten()
        found = torch.bincount(pairs, minlength=self.num_classes**2)
        self.flat = found if self.flat is None else self.flat + found

    def table(self) -> Tensor:
        """Return the counts [K, K] on the CPU, by the classes of the first and of the second argument of `add`."""
        flat = torch.zeros(self.num_classes**2, dtype=torch.int64) if self.flat is None else self.flat
        return flat.view(self.num_classes, self.num_classes).cpu()

    def counts(self) -> dict[tuple[int, int], int]:
        """Return the number of pixels for each pair of classes that occurred."""
        table = self.table()
        places = table.nonzero().tolist()
        return {(one, other): int(table[one, other]) for one, other in places}
