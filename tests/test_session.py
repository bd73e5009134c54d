"""What keeps a training alive: a way back from a diverged loss, and checkpoints of states that a run can go on from."""

import errno
import json
import time
from pathlib import Path

import pytest
import torch
from test_methods import equal, make, weights

from dfkd_cli.errors import DivergedError
from dfkd_cli.methods import METHODS
from dfkd_cli.training.checkpoint import Checkpoints, Interval
from dfkd_cli.training.clock import BudgetClock
from dfkd_cli.training.engine import Distillation, Event
from dfkd_cli.training.metrics_log import MetricsLog
from dfkd_cli.training.session import Session


class Ears:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.events: list[Event] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def event(self, event: Event) -> None:
        self.events.append(event)


def train(run: Distillation, folder: Path, interval: Interval) -> Ears:
    ears = Ears()
    with MetricsLog(folder / "metrics.jsonl") as metrics:
        Session(run, Checkpoints(folder / "checkpoints"), interval, metrics, ears, time.monotonic()).train()
    return ears


def spoil(run: Distillation, at_step: int, times: int) -> None:
    """Makes the loss of one step infinite, as often as it is reached until then."""
    method, left = run.method, [times]
    loss = method.student_loss

    def spoiled(batch, progress):
        terms, logged = loss(batch, progress)
        if run.step == at_step and left[0] > 0:
            left[0] -= 1
            terms = {name: value * torch.inf for name, value in terms.items()}
        return terms, logged

    method.student_loss = spoiled


@pytest.mark.parametrize("interval", [Interval(), Interval(steps=2)], ids=["to the start", "to a checkpoint"])
@pytest.mark.parametrize("name", METHODS)
def test_a_loss_that_is_not_finite_goes_back_once_with_a_smaller_step(tmp_path, name, interval):
    method, run = make(name, "train.report_every=1")
    spoil(run, at_step=4, times=1)
    ears = train(run, tmp_path, interval)
    assert ears.events[-1].step == 6
    assert run.optimizer.param_groups[0]["lr"] < 0.1 * run.config.lr
    assert all(value.isfinite().all() for value in method.setting.student.state_dict().values())
    went_back = [note for note in ears.notes if "not finite" in note]
    assert len(went_back) == 1
    assert f"went back to step {0 if interval == Interval() else 4}" in went_back[0]
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == sorted(lines)


@pytest.mark.parametrize("interval", [Interval(), Interval(steps=2)])
def test_a_second_time_ends_the_run_and_leaves_no_checkpoint(tmp_path, interval):
    _, run = make("ssd", "train.report_every=1")
    spoil(run, at_step=4, times=2)
    with pytest.raises(DivergedError, match="not finite"):
        train(run, tmp_path, interval)
    assert Checkpoints(tmp_path / "checkpoints").step() is None


def test_a_last_update_that_ruins_the_weights_is_noticed(tmp_path):
    method, run = make("ssd")
    step = run.optimizer.step

    def ruin():
        step()
        if run.step == 5 and run.rate_scale == 1.0:
            next(method.setting.student.parameters()).data.fill_(torch.nan)

    run.optimizer.step = ruin  # pyright: ignore[reportAttributeAccessIssue]
    ears = train(run, tmp_path, Interval())
    assert any("not finite" in note for note in ears.notes)
    assert all(value.isfinite().all() for value in method.setting.student.state_dict().values())


@pytest.mark.parametrize("name", METHODS)
def test_going_back_in_the_same_process_is_going_back(tmp_path, name):
    """Loading an earlier state into a run that has gone on leaves nothing of what it did."""
    method, run = make(name)
    events = run.run()
    next(event for event in events if event.step >= 2)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(run.state_dict(), run.step)
    list(events)
    expected = weights(method.setting.student)
    state = checkpoints.load(pytest.fail)
    assert state is not None
    run.load_state_dict(state)
    list(run.run())
    assert equal(expected, weights(method.setting.student))


def test_checkpoints_come_as_often_as_asked_whatever_the_events(tmp_path):
    _, run = make("ssd", "train.report_every=1000")
    steps = []
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    save = checkpoints.save
    checkpoints.save = lambda state, step: (steps.append(step), save(state, step))[1]
    with MetricsLog(tmp_path / "metrics.jsonl") as metrics:
        Session(run, checkpoints, Interval(steps=2), metrics, Ears(), time.monotonic()).train()
    assert steps == [2, 4, 6]


def test_a_budget_that_goes_back_does_not_get_its_time_again(tmp_path):
    _, run = make("ssd", "train.report_every=1")
    now = [0.0]
    run.clock = BudgetClock(10.0, now=lambda: now[0])
    step = run.optimizer.step

    def passing():
        step()
        now[0] += 1.0

    run.optimizer.step = passing  # pyright: ignore[reportAttributeAccessIssue]
    spoil(run, at_step=4, times=1)
    train(run, tmp_path, Interval(steps=2))
    assert run.step == 9  # ten steps of time, one of them lost
    assert now[0] == pytest.approx(10.0)


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    _, run = make("ssd")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    save = checkpoints.save

    def full(state, step):
        if step > 2:
            raise OSError(errno.ENOSPC, "full")
        save(state, step)

    monkeypatch.setattr(checkpoints, "save", full)
    with MetricsLog(tmp_path / "metrics.jsonl") as metrics, pytest.raises(OSError, match="full"):
        Session(run, checkpoints, Interval(steps=2), metrics, Ears(), time.monotonic()).train()
    assert checkpoints.step() == 2


def test_a_slow_run_is_heard_of_between_its_usual_reports(tmp_path, monkeypatch):
    _, run = make("ssd", "train.report_every=100")
    assert len(train(run, tmp_path, Interval()).events) == 1
    monkeypatch.setattr("dfkd_cli.training.session.LONGEST_SILENCE_S", 0.0)
    _, slow = make("ssd", "train.report_every=100")
    (tmp_path / "slow").mkdir()
    ears = train(slow, tmp_path / "slow", Interval())
    assert [event.step for event in ears.events if event.phase == "training"] == [*range(1, 7), 6]
    assert equal(weights(run.setting.student), weights(slow.setting.student))
