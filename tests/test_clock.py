"""Progress by steps and by time."""

import time
from dataclasses import replace

import pytest

from dfkd_cli.compression.budget import SAVING_RESERVE_S
from dfkd_cli.compression.clock import make_clock
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.training.clock import BudgetClock, StepClock


def test_steps_count_to_one_and_no_further():
    clock = StepClock(4)
    assert [clock.progress(step) for step in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]


def test_a_budget_follows_the_time_and_not_the_steps():
    now = [100.0]
    clock = BudgetClock(10.0, now=lambda: now[0])
    assert clock.progress(10**6) == 0.0
    now[0] = 105.0
    assert clock.progress(0) == 0.5
    now[0] = 999.0
    assert clock.progress(0) == 1.0


def test_a_restored_budget_counts_the_time_already_used():
    now = [0.0]
    clock = BudgetClock(10.0, now=lambda: now[0])
    now[0] = 4.0
    state = clock.state_dict()
    now[0] = 1000.0
    restored = BudgetClock(10.0, now=lambda: now[0])
    restored.load_state_dict(state)
    assert restored.progress(0) == 0.4


def test_a_resumed_budget_spreads_what_is_left_of_the_whole_run():
    config = replace(load_recipe("ssd", []).train, budget=10_000.0)
    saved = {"distillation": {"clock": {"used": 3000.0}}}
    clock = make_clock(config, started=time.monotonic() - 4000.0, teacher_pass_s=500.0, saved=saved)
    clock.load_state_dict(saved["distillation"]["clock"])
    left = 10_000.0 - 4000.0 - SAVING_RESERVE_S - 2 * 500.0
    assert clock.progress(0) == pytest.approx(3000.0 / (3000.0 + left), abs=1e-4)


def test_a_budget_that_loading_again_has_used_up_ends_at_once_with_what_there_is():
    config = replace(load_recipe("ssd", []).train, budget=100.0)
    saved = {"distillation": {"clock": {"used": 30.0}}}
    clock = make_clock(config, started=time.monotonic() - 99.0, teacher_pass_s=5.0, saved=saved)
    clock.load_state_dict(saved["distillation"]["clock"])
    assert clock.progress(0) == 1.0
