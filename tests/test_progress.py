"""The progress that a running compression prints."""

import pytest

from dfkd_cli.cli.progress import PlainProgress, describe, time_left
from dfkd_cli.config.times import parse_budget
from dfkd_cli.errors import UsageError
from dfkd_cli.training.event import Event


def event(step: int = 50, progress: float = 0.25, **metrics: float) -> Event:
    counts: dict[str, float | list[float]] = {"images/kept": 10.0, "images/generated": 20.0}
    return Event("training", step, progress, step * 8, counts | metrics)


def test_a_line_holds_loss_agreement_counts_and_speed():
    line = describe(event(loss=1.5, agreement=0.75), images_per_s=1234.0)
    assert line == "training, step 50, loss 1.500, agreement 0.750, 10 of 20 images kept, 1,234 images/s"


@pytest.mark.parametrize(
    ("elapsed", "progress", "text"), [(10, 0.0, None), (30, 0.5, "30s"), (60, 0.25, "3m00s"), (60, 1.0, "0s")]
)
def test_time_left_follows_the_speed_so_far(elapsed, progress, text):
    assert time_left(elapsed, progress, 1.0 - progress) == text


def test_time_left_counts_from_the_first_event_that_moves(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("dfkd_cli.cli.progress.time.monotonic", lambda: clock[0])
    progress, seen = PlainProgress(), []
    for now, done in [(160, 0.5), (170, 0.5), (180, 0.6), (190, 0.7)]:  # a minute of loading, a resumed run
        clock[0] = now
        seen.append(progress.line(event(progress=done)).split(", ")[0])
    assert seen == ["training", "training", "40s left", "30s left"]


def test_plain_lines_go_to_stderr_and_not_at_every_event(capsys):
    with PlainProgress() as progress:
        for step in range(50):
            progress.event(event(step))
        progress.event(event(50, progress=1.0))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 2


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), (" 2H ", 7200)])
def test_a_budget_is_a_number_and_a_unit(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "0s", "-5m", "5 days", "1e3s"])
def test_any_other_budget_is_a_usage_error(text):
    with pytest.raises(UsageError, match="90s, 30m or 2h"):
        parse_budget(text)
