"""Progress by steps and by time."""

from dfkd_cli.clock import BudgetClock, StepClock


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
