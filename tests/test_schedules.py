"""Schedules at their ends and between them."""

import pytest

from dfkd_cli.training.schedules import cosine, end_of_share, linear, ramp


def test_cosine_goes_from_start_to_end():
    values = [cosine(progress, 2.0, 0.5) for progress in (0.0, 0.5, 1.0, 1.5)]
    assert values == pytest.approx([2.0, 1.25, 0.5, 0.5])


def test_ramp_rises_until_its_end_and_a_ramp_of_no_length_is_over_at_once():
    assert [ramp(progress, 0.2) for progress in (0.0, 0.1, 0.2, 0.9)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert ramp(0.0, 0.0) == 1.0


def test_linear_waits_rises_and_stays():
    values = [linear(progress, 2.0, 6.0, 0.25, 0.75) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert values == [2.0, 2.0, 4.0, 6.0, 6.0]
    assert [linear(progress, 2.0, 6.0, 0.5, 0.5) for progress in (0.5, 0.51)] == [2.0, 6.0]


def test_a_share_of_the_rest_ends_between_where_it_begins_and_the_end():
    assert end_of_share(0.0, 0.25) == 0.25
    assert end_of_share(0.5, 0.5) == 0.75
    assert end_of_share(0.9, 0.9) < 1.0
    assert end_of_share(0.3, 0.0) == 0.3
