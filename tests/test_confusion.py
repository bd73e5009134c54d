"""The confusion counts the pairs of classes that the two networks predict."""

import torch

from dfkd_cli.evaluation.confusion import Confusion, Difference

TEACHER = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
STUDENT = torch.tensor([0, 1, 1, 1, 0, 2, 2, 0, 3])


def confusion(batches: int = 1, num_classes: int = 4) -> Confusion:
    counted = Confusion(num_classes)
    for teacher, student in zip(TEACHER.chunk(batches), STUDENT.chunk(batches), strict=True):
        counted.add(teacher, student)
    return counted


def test_the_matrix_does_not_depend_on_the_batches():
    expected = [[1, 2, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 2, 1, 0], [0, 0, 0, 0, 0]]
    for batches in (1, 3, 9):
        assert confusion(batches).matrix([0, 1, 2, 3]) == expected


def test_the_last_column_counts_classes_that_are_not_shown():
    assert confusion().matrix([2, 0]) == [[2, 1, 1], [0, 1, 2]]


def test_differences_are_sorted_by_number_of_images():
    assert confusion().differences() == [
        Difference(0, 1, 2),
        Difference(1, 0, 1),
        Difference(2, 0, 1),
        Difference(2, 3, 1),
    ]


def test_the_most_confused_classes_occur_in_most_differences():
    assert confusion().most_confused(1) == [0]  # in four of the five
    assert confusion().most_confused(2) == [0, 1]  # 1 in three, 2 in two
    assert confusion().most_confused(9) == [0, 1, 2, 3]


def test_a_confusion_without_images_has_only_zeros():
    assert Confusion(2).matrix([0, 1]) == [[0, 0, 0], [0, 0, 0]]
    assert Confusion(2).differences() == []


def test_memory_does_not_grow_with_the_square_of_the_classes():
    counted = confusion(num_classes=1_000_000)  # a full matrix would take 8 TB
    assert sum(counted.counts().values()) == len(TEACHER)
