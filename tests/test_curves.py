"""Curves hold the logged values, however long and unusual the log is."""

import json
import math

import numpy as np
import pytest

from dfkd_cli.report.page.curves import MAX_POINTS, grouped, read_curves


def log(*events: tuple[str, int, dict]) -> list[str]:
    return [json.dumps({"phase": phase, "step": step, "metrics": metrics}) for phase, step, metrics in events]


def curves(*events: tuple[str, int, dict]):
    return {curve.name: curve for curve in read_curves(log(*events))}


def test_a_number_is_drawn_as_it_was_logged():
    found = curves(("training", 5, {"kd": 3.0}), ("training", 10, {"kd": 2.5}), ("training", 12, {"kd": 2.0}))["kd"]
    assert found.steps.tolist() == [5, 10, 12]
    assert found.values.tolist() == [[3.0], [2.5], [2.0]]


def test_events_of_the_warmup_have_negative_steps_with_the_same_spacing():
    warmup = [("warm-up", 0, {"bn": 9.0}), ("warm-up", 0, {"bn": 8.0})]
    found = curves(*warmup, ("training", 7, {"bn": 7.0}), ("training", 17, {"bn": 6.0}), ("training", 27, {"bn": 5.0}))
    assert found["bn"].steps.tolist() == [-20, -10, 7, 17, 27]


def test_quantities_that_are_logged_later_have_their_own_steps():
    found = curves(("training", 1, {"a": 1.0}), ("training", 2, {"a": 1.0, "b": 5.0}))
    assert found["b"].steps.tolist() == [2]
    assert list(found) == ["a", "b"]


def test_a_vector_becomes_its_quartiles_and_quartiles_stay_the_same():
    shares = np.random.default_rng(0).random(1000).tolist()
    found = curves(("training", 1, {"shares": shares, "quartiles": [0.0, 0.1, 0.5, 0.6, 1.0]}))
    ordered = sorted(shares)
    assert found["shares"].values[0, [0, 4]].tolist() == [ordered[0], ordered[-1]]
    assert found["shares"].values[0, 2] == pytest.approx((ordered[499] + ordered[500]) / 2)
    assert found["shares"].entries == 1000
    assert found["quartiles"].values.tolist() == [[0.0, 0.1, 0.5, 0.6, 1.0]]


def test_long_runs_are_averaged_not_cut():
    found = curves(*(("training", step, {"kd": float(step)}) for step in range(1, 10 * MAX_POINTS + 1)))["kd"]
    assert len(found.steps) == MAX_POINTS
    assert found.values.mean() == pytest.approx((10 * MAX_POINTS + 1) / 2)
    assert found.values[0, 0] == pytest.approx(np.mean(np.arange(1, 11)))


def test_values_that_are_not_finite_are_gaps_and_a_curve_of_them_is_left_out():
    found = curves(("training", 1, {"a": math.inf, "b": math.nan}), ("training", 2, {"a": 1.0, "b": math.nan}))
    assert list(found) == ["a"]
    assert np.isnan(found["a"].values[0, 0])


def test_curves_are_grouped_by_prefix_and_the_students_come_first():
    found = read_curves(log(("training", 1, {"buffer/x": 1.0, "kd": 2.0, "loss": 3.0, "buffer/y": 1.0})))
    names = {prefix: [curve.name for curve in members] for prefix, members in grouped(found).items()}
    assert names == {"": ["kd", "loss"], "buffer": ["buffer/x", "buffer/y"]}
    assert list(names) == ["", "buffer"]


def test_a_loss_of_one_term_is_shown_once():
    found = read_curves(log(("training", 1, {"loss": 3.0, "kd": 3.0, "agreement": 0.5})))
    assert [curve.name for curve in grouped(found)[""]] == ["kd", "agreement"]


def test_an_empty_log_has_no_curves():
    assert read_curves([]) == read_curves(log(("training", 1, {}))) == []
    assert grouped([]) == {}
