"""A session restarts after a diverged loss, and writes checkpoints that a loop can continue from."""

import errno
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_methods import equal, make, warm, weights

from dfkd_cli.errors import DivergedError
from dfkd_cli.methods import METHODS
from dfkd_cli.training.checkpoint import Checkpoints, Interval
from dfkd_cli.training.clock import BudgetClock
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.event import Event
from dfkd_cli.training.metrics_log import MetricsLog
from dfkd_cli.training.session import Session


class Ears:
    """A listener that stores notes and events."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.events: list[Event] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def event(self, event: Event) -> None:
        self.events.append(event)


def train(loop: Distillation, folder: Path, interval: Interval) -> Ears:
    ears = Ears()
    with MetricsLog(folder / "metrics.jsonl") as metrics:
        Session(loop, Checkpoints(folder / "checkpoints"), interval, metrics, ears, time.monotonic()).train()
    return ears


def spoil(loop: Distillation, at_step: int, times: int) -> None:
    """Make the loss of one step infinite, the first `times` times that it is computed."""
    student_loss, left = loop.method.loss, [times]
    compute = student_loss.compute

    def spoiled(batch, progress):
        computed = compute(batch, progress)
        if loop.step != at_step or left[0] == 0:
            return computed
        left[0] -= 1
        return computed._replace(terms={name: value * torch.inf for name, value in computed.terms.items()})

    student_loss.compute = spoiled


@pytest.mark.parametrize("interval", [Interval(), Interval(steps=2)], ids=["to the start", "to a checkpoint"])
@pytest.mark.parametrize("name", METHODS)
def test_a_loss_that_is_not_finite_restarts_once_with_a_smaller_rate(tmp_path, name, interval):
    loop = make(name, "train.report_every=1")
    spoil(loop, at_step=4, times=1)
    ears = train(loop, tmp_path, interval)
    assert ears.events[-1].step == 6
    assert loop.optimizer.param_groups[0]["lr"] < 0.1 * loop.config.lr
    assert all(value.isfinite().all() for value in loop.setting.student.state_dict().values())
    went_back = [note for note in ears.notes if "not finite" in note]
    assert len(went_back) == 1
    assert f"went back to step {0 if interval == Interval() else 4}" in went_back[0]
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == sorted(lines)


@pytest.mark.parametrize("interval", [Interval(), Interval(steps=2)])
def test_a_second_divergence_ends_the_run_and_leaves_no_checkpoint(tmp_path, interval):
    loop = make("ssd", "train.report_every=1")
    spoil(loop, at_step=4, times=2)
    with pytest.raises(DivergedError, match="not finite"):
        train(loop, tmp_path, interval)
    assert Checkpoints(tmp_path / "checkpoints").step() is None


def test_weights_that_are_not_finite_after_the_last_step_are_detected(tmp_path):
    loop = make("ssd")
    step = loop.optimizer.step

    def ruin():
        step()
        if loop.step == 5 and loop.rate_scale == 1.0:
            next(loop.setting.student.parameters()).data.fill_(torch.nan)

    loop.optimizer.step = ruin  # pyright: ignore[reportAttributeAccessIssue]
    ears = train(loop, tmp_path, Interval())
    assert any("not finite" in note for note in ears.notes)
    assert all(value.isfinite().all() for value in loop.setting.student.state_dict().values())


@pytest.mark.parametrize("name", METHODS)
def test_an_earlier_state_can_be_restored_in_the_same_process(tmp_path, name):
    """A loop that loads an earlier state keeps nothing of its later one."""
    loop = make(name)
    events = loop.events()
    next(event for event in events if event.step >= 2)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(loop.state_dict(), loop.step)
    list(events)
    expected = weights(loop.setting.student)
    state = checkpoints.load(pytest.fail)
    assert state is not None
    loop.load_state_dict(state)
    list(loop.events())
    assert equal(expected, weights(loop.setting.student))


def test_checkpoints_come_as_often_as_asked_whatever_the_events(tmp_path):
    loop = make("ssd", "train.report_every=1000")
    steps = []
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    save = checkpoints.save
    checkpoints.save = lambda state, step: (steps.append(step), save(state, step))[1]
    with MetricsLog(tmp_path / "metrics.jsonl") as metrics:
        Session(loop, checkpoints, Interval(steps=2), metrics, Ears(), time.monotonic()).train()
    assert steps == [2, 4, 6]


def on_a_budget(loop: Distillation, seconds: Callable[[int], float]) -> list[float]:
    """Give the loop a budget of 10 s, of which each step takes some; return a list with the present time."""
    now = [0.0]
    loop.clock = BudgetClock(10.0, now=lambda: now[0])
    step = loop.optimizer.step

    def passing():
        step()
        now[0] += seconds(loop.step)

    loop.optimizer.step = passing  # pyright: ignore[reportAttributeAccessIssue]
    return now


def test_a_restart_does_not_extend_the_budget(tmp_path):
    loop = make("ssd", "train.report_every=1")
    now = on_a_budget(loop, lambda step: 1.0)
    spoil(loop, at_step=4, times=1)
    train(loop, tmp_path, Interval(steps=2))
    assert loop.step == 9  # time for ten steps, one of which was discarded
    assert now[0] == pytest.approx(10.0)


def test_a_loss_that_is_not_finite_at_the_end_of_a_budget_ends_the_run(tmp_path):
    loop = make("ssd", "train.report_every=1")
    on_a_budget(loop, lambda step: 2.5 if step < 3 else 5.0)
    spoil(loop, at_step=3, times=1)
    with pytest.raises(DivergedError, match="not finite near step 4"):
        train(loop, tmp_path, Interval())


def test_a_resumed_run_that_is_before_its_beginning_has_no_negative_rate():
    loop = warm(make("ssd", "train.lr_warmup=0.5"))
    loop.begun_at = 0.3
    loop.student_step(0.28)
    assert [group["lr"] for group in loop.optimizer.param_groups] == [0.0, 0.0]


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    loop = make("ssd")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    save = checkpoints.save

    def full(state, step):
        if step > 2:
            raise OSError(errno.ENOSPC, "full")
        save(state, step)

    monkeypatch.setattr(checkpoints, "save", full)
    with MetricsLog(tmp_path / "metrics.jsonl") as metrics, pytest.raises(OSError, match="full"):
        Session(loop, checkpoints, Interval(steps=2), metrics, Ears(), time.monotonic()).train()
    assert checkpoints.step() == 2


def test_a_slow_run_has_events_between_its_usual_reports(tmp_path, monkeypatch):
    loop = make("ssd", "train.report_every=100")
    assert len(train(loop, tmp_path, Interval()).events) == 1
    monkeypatch.setattr("dfkd_cli.training.session.LONGEST_GAP_S", 0.0)
    slow = make("ssd", "train.report_every=100")
    (tmp_path / "slow").mkdir()
    ears = train(slow, tmp_path / "slow", Interval())
    assert [event.step for event in ears.events if event.phase == "training"] == [*range(1, 7), 6]
    assert equal(weights(loop.setting.student), weights(slow.setting.student))
