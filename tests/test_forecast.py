"""`dfkd plan`: its arithmetic, and plans compared with runs of the same arguments."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import LOOK, dfkd, save_teacher
from forked_command import ForkedCommand
from noise_pool import noise_pool
from operation_clock import main_by_operations

from dfkd_cli.compression import budget, pace
from dfkd_cli.compression.budget import SAVING_RESERVE_S, SAVING_S, TRIED_IMAGES, reckon, time_teacher_pass
from dfkd_cli.compression.clock import make_clock
from dfkd_cli.compression.pace import Pace
from dfkd_cli.methods import METHODS
from dfkd_cli.methods.ssd import ImportanceWeightedLoss
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.training.clock import BudgetClock
from dfkd_cli.training.method import WarmupPlan

PACE = Pace(
    start_s=5.0,
    warmup=WarmupPlan(rounds=10, share=0.2),
    warmup_round_s=2.0,
    round_s=4.0,
    step_s=0.5,
    peak_bytes=10**9,
    laps=12,
    notes=(),
)
# Several rounds before the student steps, and several between them.
RUN = (
    "train.steps=25",
    "train.batch_size=64",
    "train.compile=off",
    "options.warmup.rounds=8",
    "options.buffer.size=500",
    "options.generator.batch_size=64",
)
EAGER = ("--set", "train.compile=off")


def config(**changes):
    return replace(load_recipe("ssd", []).train, **changes)


@dataclass(frozen=True)
class Labelled:
    """Evaluation data, as far as its size goes."""

    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)


def test_a_run_of_steps_takes_the_sum_of_its_phases():
    steps, rounds, seconds = reckon(config(steps=101, round_every=4), PACE, loading_s=3.0, teacher_pass_s=7.0)
    assert (steps, rounds) == (101, 10)
    assert (seconds.loading, seconds.evaluation, seconds.saving) == (8.0, 21.0, SAVING_S)
    assert seconds.warmup == 20.0
    assert seconds.synthesis == 25 * 4.0  # 26 rounds, of which the last one of the warm-up is the first
    assert seconds.distillation == 50.5
    assert seconds.total == 8.0 + 20.0 + 100.0 + 50.5 + 21.0 + SAVING_S


def test_the_steps_of_a_budget_are_those_that_fit():
    steps, rounds, seconds = reckon(config(budget=1000.0, round_every=4), PACE, loading_s=3.0, teacher_pass_s=7.0)
    assert seconds.total == 1000.0
    left = 1000.0 - 3.0 - 5.0 - 3 * 7.0 - SAVING_RESERVE_S - 20.0
    assert (steps, rounds) == (int(left / (0.5 + 4.0 / 4)), 10)


def test_a_short_budget_cuts_the_warm_up_and_a_tiny_one_leaves_no_steps():
    _, rounds, seconds = reckon(config(budget=68.0), PACE, loading_s=0.0, teacher_pass_s=0.0)
    assert (rounds, seconds.warmup) == (6, 12.0)  # a fifth of the 60 s that are left
    steps, rounds, _ = reckon(config(budget=5.0), PACE, loading_s=0.0, teacher_pass_s=0.0)
    assert (steps, rounds) == (0, 0)


@pytest.mark.parametrize("teacher_pass_s", [0.0, 7.0])
def test_a_plan_and_its_run_set_aside_the_same_seconds(monkeypatch, teacher_pass_s):
    train, loading_s = config(budget=1000.0), 30.0
    _, _, seconds = reckon(train, replace(PACE, start_s=0.0), loading_s, teacher_pass_s)
    # The clock of a run starts after loading and after one pass of the teacher.
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: loading_s + teacher_pass_s)
        clock = make_clock(train, started=0.0, teacher_pass_s=teacher_pass_s, saved=None)
    assert isinstance(clock, BudgetClock)
    assert clock.seconds == 1000.0 - seconds.loading - seconds.evaluation - seconds.saving
    assert clock.seconds == 1000.0 - 30.0 - 3 * teacher_pass_s - SAVING_RESERVE_S


@pytest.mark.parametrize("count", [100, 3000])
def test_a_plan_estimates_the_pass_that_a_run_measures(monkeypatch, count):
    now, passed = [0.0], []

    def measure(_teacher: Any, data: Labelled, _device: Any) -> None:
        passed.append(len(data))
        now[0] += 0.25 * len(data)

    monkeypatch.setattr(budget, "measure_accuracy", measure)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: now[0]))
    loaded: Any = SimpleNamespace(data=Labelled((0,) * count), teacher=None, runtime=SimpleNamespace(device=None))
    assert time_teacher_pass(loaded) == time_teacher_pass(loaded, TRIED_IMAGES) == 0.25 * count
    assert passed == [count, min(count, TRIED_IMAGES)]
    loaded.data = None
    assert time_teacher_pass(loaded) == 0.0


def test_a_plan_foresees_time_and_memory_of_its_run(tmp_path):
    """Time is counted in operations, because other load on the machine would affect only one of the two."""
    settings = [part for value in RUN for part in ("--set", value)]
    teacher = save_teacher(tmp_path / "teacher.pt")
    told = [str(teacher), *LOOK, "--student", "cifar_resnet8", *settings, "--precision", "fp32", "--json"]
    plan, report = (run_document(words, told) for words in (["plan"], ["compress", "--out", str(tmp_path / "out")]))
    assert plan["steps"] == report["steps"] == 25
    assert plan["student"]["parameters"] == report["student"]["parameters"]
    assert plan["student"]["latency_ms"] > 0
    assert plan["teacher"]["latency_ms"] > 0
    assert plan["recipe_sha256"] == report["recipe"]["sha256"]
    seconds, took = plan["seconds"], report["time"]
    assert seconds["distillation"] == pytest.approx(took["distillation_s"], rel=0.05)
    assert seconds["warmup"] + seconds["synthesis"] == pytest.approx(took["synthesis_s"], rel=0.05)
    assert seconds["total"] == pytest.approx(took["total_s"], rel=0.1)
    assert plan["peak_bytes"] == pytest.approx(report["memory"]["peak_bytes"], rel=0.3)


def run_document(words: list[str], arguments: list[str]) -> dict:
    done = ForkedCommand(words[0], *arguments, *words[1:], entry=main_by_operations).wait()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("recipe", METHODS)
def test_every_recipe_can_be_planned(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(pace, "ENOUGH_S", 0.0)
    teacher = save_teacher(tmp_path / "teacher.pt")
    pool = ["--pool", noise_pool()] if METHODS[recipe].needs.pool else []
    more = ["--set", "train.steps=10", "--set", "train.batch_size=8", "--recipe", recipe, *pool, "--json"]
    result = dfkd("plan", teacher, *LOOK, "--student", "cifar_resnet8", *more)
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["steps"] == 10
    seconds = plan["seconds"]
    assert min(plan["warmup_rounds"], plan["step_s"], plan["round_s"], seconds["distillation"], seconds["warmup"]) > 0


def test_a_plan_says_that_memory_ran_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "ENOUGH_S", 0.0)
    compute = ImportanceWeightedLoss.compute

    def fits_four(loss, batch, progress):
        if len(batch.images) > 4:
            raise MemoryError
        return compute(loss, batch, progress)

    monkeypatch.setattr(ImportanceWeightedLoss, "compute", fits_four)
    more = ["--set", "train.steps=10", "--set", "train.batch_size=8", "--json"]
    result = dfkd("plan", save_teacher(tmp_path / "teacher.pt"), *LOOK, "--student", "cifar_resnet8", *more)
    assert result.exit_code == 0, result.stderr
    assert sum("computed in 2 parts" in note for note in json.loads(result.stdout)["notes"]) == 1


def test_a_long_share_for_the_pool_can_be_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "ENOUGH_S", 0.0)
    monkeypatch.setattr(pace, "MOST", 8)
    more = ["train.steps=10", "train.batch_size=3", "options.selection.reading_share=0.9"]
    told = ["--recipe", "unlabeled", "--pool", noise_pool(), *(part for value in more for part in ("--set", value))]
    result = dfkd("plan", save_teacher(tmp_path / "teacher.pt"), *LOOK, "--student", "cifar_resnet8", *told)
    assert result.exit_code == 0, result.stderr


def test_a_plan_writes_nothing_and_fits_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "ENOUGH_S", 0.0)
    teacher = save_teacher(tmp_path / "teacher.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    result = dfkd("plan", teacher, *LOOK, "--student", "cifar_resnet8", "--budget", "600s", "--out", "out", *EAGER)
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.pt"]
    assert result.stdout.startswith("time     10 min 00 s: loading ")
    labels = [line.split()[0] for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert labels == ["time", "steps", "memory", "teacher", "student", "recipe", *["note"] * labels.count("note")]
    assert "--resolved --set train.compile=off" in " ".join(result.stdout.split())
    assert len(result.stdout.splitlines() + result.stderr.splitlines()) < 24  # a line is left for the prompt
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--set", "train.lrr=1"], 2),
        (["--student", "cifar_resnet9"], 2),
        (["--out", "."], 2),
        (["--eval", "no"], 2),
        (["--budget", "1s"], 2),
    ],
)
def test_a_plan_fails_as_its_run_would(tmp_path, monkeypatch, more, code):
    monkeypatch.setattr(pace, "ENOUGH_S", 0.0)
    monkeypatch.chdir(tmp_path)
    teacher = save_teacher(Path("teacher.pt"))
    assert dfkd("plan", teacher, *LOOK, "--student", "cifar_resnet8", *more).exit_code == code
