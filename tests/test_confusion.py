"""The confusion counts what the two networks answered, and nothing else."""

import torch

from dfkd_cli.evaluation.confusion import Confusion, Mistaken

TEACHER = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
STUDENT = torch.tensor([0, 1, 1, 1, 0, 2, 2, 0, 3])


def confusion(batches: int = 1, num_classes: int = 4) -> Confusion:
    counted = Confusion(num_classes)
    for teacher, student in zip(TEACHER.chunk(batches), STUDENT.chunk(batches), strict=True):
        counted.add(teacher, student)
    return counted


def test_matrix_counts_pairs_however_they_came_in_batches():
    expected = [[1, 2, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 2, 1, 0], [0, 0, 0, 0, 0]]
    for batches in (1, 3, 9):
        assert confusion(batches).matrix([0, 1, 2, 3]) == expected


def test_the_last_column_holds_what_the_shown_classes_do_not():
    assert confusion().matrix([2, 0]) == [[2, 1, 1], [0, 1, 2]]


def test_mistakes_come_in_order_of_their_number():
    assert confusion().mistakes() == [Mistaken(0, 1, 2), Mistaken(1, 0, 1), Mistaken(2, 0, 1), Mistaken(2, 3, 1)]


def test_the_most_confused_classes_are_those_in_most_mistakes():
    assert confusion().most_confused(1) == [0]  # in four of the five
    assert confusion().most_confused(2) == [0, 1]  # 1 in three, 2 in two
    assert confusion().most_confused(9) == [0, 1, 2, 3]


def test_nothing_counted_is_an_empty_matrix():
    assert Confusion(2).matrix([0, 1]) == [[0, 0, 0], [0, 0, 0]]
    assert Confusion(2).mistakes() == []


def test_memory_does_not_grow_with_the_square_of_the_classes():
    counted = confusion(num_classes=1_000_000)  # a full matrix would take 8 TB
    assert sum(counted.counts().values()) == len(TEACHER)
