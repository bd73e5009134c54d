"""How a student's answers differ from its teacher's, class by class."""

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor


class Mistaken(NamedTuple):
    """One way in which the two differ, with the number of images."""

    teacher: int  # class
    student: int  # class
    images: int


class Confusion:
    """Counts the student's answer for each of the teacher's. Memory grows with the images, not with classes²."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.answers: list[Tensor] = []  # teacher's class * num_classes + student's; on the device until asked for

    def add(self, teacher_classes: Tensor, student_classes: Tensor) -> None:
        """Takes the classes that both name for the same images, [B] each. Does not wait for the device."""
        self.answers.append(teacher_classes * self.num_classes + student_classes)

    def counts(self) -> dict[tuple[int, int], int]:
        """Number of images per (teacher's class, student's class) that occurred. Waits for the device."""
        if not self.answers:
            return {}
        pairs, counts = torch.cat(self.answers).unique(return_counts=True)
        return {
            divmod(pair, self.num_classes): count for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        }

    def mistakes(self) -> list[Mistaken]:
        """Every way in which the two differ, the commonest first."""
        found = [Mistaken(teacher, student, n) for (teacher, student), n in self.counts().items() if teacher != student]
        return sorted(found, key=lambda mistaken: (-mistaken.images, mistaken))

    def most_confused(self, limit: int) -> list[int]:
        """The classes that take part in most disagreements, at most `limit`, ascending."""
        involved: Counter[int] = Counter()
        for mistaken in self.mistakes():
            involved[mistaken.teacher] += mistaken.images
            involved[mistaken.student] += mistaken.images
        order = sorted(range(self.num_classes), key=lambda number: (-involved[number], number))
        return sorted(order[:limit])

    def matrix(self, classes: list[int]) -> list[list[int]]:
        """A row per teacher's class: images per student's class in the order of `classes`, then those elsewhere."""
        counts = self.counts()
        rows = {number: [0] * (len(classes) + 1) for number in classes}
        place = {number: index for index, number in enumerate(classes)}
        for (teacher, student), images in counts.items():
            if teacher in rows:
                rows[teacher][place.get(student, len(classes))] += images
        return [rows[number] for number in classes]
