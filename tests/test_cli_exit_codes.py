"""Every documented exit code of a process, and the speed of the commands that need no torch."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import INSTALLED, LOOK, TINY_RUN, dfkd, installed, save_teacher
from forked_command import ForkedCommand
from PIL import Image

import dfkd_cli.cli
from dfkd_cli.methods import METHODS
from dfkd_cli.recipe.listing import list_recipes

EXIT_CODES = (Path(__file__).parent.parent / "docs" / "pipelines.md").read_text()
SMALLEST_APPLICATION = """
import rich.table, typer, yaml
application = typer.Typer()
@application.command()
def main(): "Does nothing."
application()
"""
# The installed command, and then which libraries it has loaded.
PROGRAM = f"""
import runpy, sys
try: runpy.run_path({INSTALLED!r}, run_name="__main__")
finally: print([name for name in {{names}} if name in sys.modules])
"""
TIMES_THE_SMALLEST = 2.0
SECONDS = 2.0  # of the processor
ATTEMPTS = 20


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pt")


def compress(teacher: Path, out: Path, *more: object) -> list[object]:
    return ["compress", teacher, *LOOK, "--student", "cifar_resnet8", "--out", out, *TINY_RUN, *more]


def test_0_is_success_and_checking_a_recipe_loads_no_more_than_it_needs():
    done = timed(PROGRAM.format(names=("timm", "torchvision")), "check", "ssd")[0]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n[]\n")


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--set", "train.lr=1e30", "--set", "train.steps=8"), 1, "not finite"),
        (("--studnt", "lenet5"), 2, "did you mean --student?"),
        (("--set", "options.generator.batch_size=1000000000000"), 6, "out of memory"),
    ],
)
def test_a_failed_run_prints_the_reason_and_writes_nothing(teacher, tmp_path, more, code, message):
    done = ForkedCommand(*compress(teacher, tmp_path / "out", *more)).wait()
    assert done.returncode == code, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in error
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["check"], ["recipes", "show"], ["evaluate", "{teacher}", *LOOK, "--data"]])
def test_2_is_a_path_that_is_too_long(teacher, command):
    result = dfkd(*(word.format(teacher=teacher) for word in command), "a" * 300)
    assert result.exit_code == 2
    assert result.stderr == f"error: {'a' * 300}: File name too long\n"


def test_2_is_a_seed_too_large_for_a_generator(teacher, tmp_path):
    result = dfkd("plan", teacher, *LOOK, "--student", "cifar_resnet8", "--out", tmp_path / "o", "--seed", 10**23)
    assert result.exit_code == 2
    assert "'--seed'" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "closed/x"), 2, "error: closed/x: Permission denied\n"),
        (OSError(errno.ENOSPC, "No space left", "full/x"), 1, "error: full/x: No space left\n"),
        (OSError(errno.ENOSPC, "No space left"), 1, "error: cannot write: No space left\n"),
        (OSError("of a library, not of the system"), 1, ""),
    ],
)
def test_an_error_of_the_system_is_one_line_and_a_bug_is_not(monkeypatch, error, code, told):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("dfkd_cli.students.models.list_students", fail)
    result = dfkd("models")
    assert (result.exit_code, result.stderr) == (code, told)
    assert isinstance(result.exception, SystemExit) == bool(told)


def test_3_is_a_teacher_that_cannot_be_read(tmp_path):
    (tmp_path / "teacher.pt").write_text("<!DOCTYPE html><title>404</title>")
    done = ForkedCommand("inspect", tmp_path / "teacher.pt").wait()
    assert (done.returncode, done.stdout) == (3, "")
    assert "HTML page" in done.stderr


def test_4_is_a_recipe_that_does_not_fit(tmp_path):
    """A linear network has logits only, which no recipe with needs accepts."""
    import torch
    from torch import nn

    program = torch.export.export(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval(), (torch.rand(4, 1, 8, 8),))
    torch.export.save(program, tmp_path / "teacher.pt2")
    needy = [entry for entry in list_recipes().recipes if "stages" in entry.needs]
    if not needy:
        pytest.skip(f"none of the recipes needs anything: {', '.join(METHODS)}")
    names = ("--mean", "0.4", "--std", "0.3", "--student", "cifar_resnet8", "--out", tmp_path / "out")
    done = ForkedCommand("compress", tmp_path / "teacher.pt2", *names, "--recipe", needy[0].name).wait()
    assert done.returncode == 4, done.stderr
    assert "recipes that fit" in done.stderr


def test_5_is_a_missed_gate(teacher, tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), 100).save(tmp_path / name / "1.png")
    done = ForkedCommand("evaluate", teacher, *LOOK, "--data", tmp_path, "--min-accuracy", 0.9, "--json").wait()
    assert done.returncode == 5, done.stderr
    document = json.loads(done.stdout)
    assert document["accuracy"] == pytest.approx(1 / 3)  # one image per class, all of them equal
    assert document["error"] == {"message": "accuracy 0.3333 is below --min-accuracy 0.9", "exit_code": 5}


def test_130_is_an_interrupted_run(teacher, tmp_path):
    arguments = compress(teacher, tmp_path / "out", "--set", "train.steps=1000000", "--set", "train.compile=off")
    command = ForkedCommand(*arguments)
    command.wait_until(lambda: "training" in command.stderr)
    command.send_signal(signal.SIGINT)
    assert command.wait().returncode == 130
    assert "error: interrupted" in command.stderr
    assert "Traceback" not in command.stderr


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 130])
def test_every_code_is_documented(code):
    assert f"- {code}: " in dfkd_cli.cli.EPILOG
    assert f"\n| {code} | " in EXIT_CODES


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["recipes"], 0), (["recipes", "--json"], 0), (["compress", "--studnt"], 2), (["compres"], 2)],
)
def test_help_recipes_and_wrong_usage_are_instant(arguments, code):
    """Compares with the smallest application of the same libraries, timed before and after on the same machine.

    The minimum of several processor times counts, because other processes on the core only increase it.
    """
    program = PROGRAM.format(names=("torch", "timm", "numpy"))
    least, quickest = float("inf"), float("inf")
    for _ in range(ATTEMPTS):
        before = timed(SMALLEST_APPLICATION, "--help")[1]
        done, seconds = timed(program, *arguments)
        after = timed(SMALLEST_APPLICATION, "--help")[1]
        assert done.returncode == code
        assert done.stdout.endswith("[]\n")
        least, quickest = min(least, seconds / min(before, after)), min(quickest, seconds)
        if least <= TIMES_THE_SMALLEST:
            break
    assert least <= TIMES_THE_SMALLEST
    assert quickest < SECONDS


def timed(program: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_bare_dfkd_shows_the_help():
    done = installed()
    assert done.returncode == 2
    assert "Start here" in done.stdout


def test_completion_offers_recipes_and_students():
    for words, answer in ((["compress", "t.pt", "--recipe", "s"], "ssd"), (["plan", "--student", "len"], "lenet5")):
        line = " ".join(["dfkd", *words])
        told = {"_DFKD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        assert answer in installed(environment=os.environ | told).stdout.split()
