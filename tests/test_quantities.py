"""Numbers are written the way they are read."""

import pytest

from dfkd_cli.report.quantities import counted, duration, megabytes, share


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.44, "9.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (1190.9, "19 min 51 s"),
        (3599.7, "1 h 00 min"),
        (11_100.0, "3 h 05 min"),
        (360_000.0, "100 h 00 min"),
    ],
)
def test_duration_in_two_units(seconds, text):
    assert duration(seconds) == text


def test_shares_and_sizes_and_what_is_missing():
    assert (share(0.7046767), share(0.0), share(None)) == ("70.47 %", "0.00 %", "-")
    assert (megabytes(1_492_103_168), megabytes(0), megabytes(None)) == ("1,492.10 MB", "0.00 MB", "-")


def test_a_noun_is_singular_after_one_only():
    assert [counted(n, "layer") for n in (0, 1, 2, 1024)] == ["0 layers", "1 layer", "2 layers", "1,024 layers"]
