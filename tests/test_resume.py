"""A killed run can be resumed and ends with the same student, for every method and at any moment."""

import errno
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import save_teacher
from forked_command import ForkedCommand
from noise_pool import noise_pool
from tiny_methods import tiny_options
from torch import nn

from dfkd_cli.cli import main
from dfkd_cli.cli.compress import output_folder
from dfkd_cli.compression.identity import Identity
from dfkd_cli.compression.make_job import make_job
from dfkd_cli.compression.output_folder import WRITTEN
from dfkd_cli.compression.resumption import continued
from dfkd_cli.loading import LoadOptions
from dfkd_cli.methods import METHODS
from dfkd_cli.training.checkpoint import FORMAT, Checkpoints
from dfkd_cli.training.session import Session

STEPS = 40
SMALL = (f"train.steps={STEPS}", "train.batch_size=8", "train.round_every=2", "train.report_every=7")
LOOK = ("--input-size", "1x8x8", "--mean", "0.4", "--std", "0.3", "--student", "cifar_resnet8", "--precision", "fp32")
# Method -> hash of the names of all entries of its checkpoints. Together these methods have every kind of source and
# loss that saves a state, so a further method needs no entry.
PRINTS = {
    "ssd": "8709e0cc",
    "curriculum": "78d8c6ed",
    "csd": "bce12c7d",
    "cgdd": "7445602f",
    "unlabeled": "df5b0659",
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pt")


def arguments(name: str, teacher: Path, *more: object) -> list[str]:
    values = [part for value in (*SMALL, *tiny_options(name)) for part in ("--set", value)]
    return [
        "compress",
        str(teacher),
        *LOOK,
        "--recipe",
        name,
        *values,
        *(["--pool", str(noise_pool())] if METHODS[name].needs.pool else []),
        *map(str, more),
    ]


def dfkd(monkeypatch, *command: str) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["dfkd", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def saved_step(out: Path) -> int:
    step = Checkpoints(out.with_name(f".{out.name}.unfinished") / "checkpoints").step()
    return -1 if step is None else step


def stop(command: ForkedCommand, out: Path, step: int, how: signal.Signals) -> str:
    """Send the signal after a checkpoint of this step or a later one; return the command's stderr."""
    command.wait_until(lambda: saved_step(out) >= step)
    command.send_signal(how)
    return command.wait().stderr


def interrupted(_: Session) -> None:
    """Stop like Ctrl-C before the first step."""
    raise KeyboardInterrupt


def student(out: Path) -> bytes:
    return (out / "student.safetensors").read_bytes()


def unfinished(out: Path) -> Path:
    return out.with_name(f".{out.name}.unfinished")


@pytest.fixture(scope="module")
def stopped(teacher, tmp_path_factory):
    """Return a function that copies the unfinished run of a method, killed half way, into a folder.

    The function returns the student of the same run without a kill, and the --out of the killed run.
    """
    made: dict[str, tuple[bytes, Path]] = {}

    def stopped(name: str, folder_of_test: Path) -> tuple[bytes, Path]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                assert dfkd(patch, *arguments(name, teacher, "--out", folder / "whole")) == 0
            out = folder / "out"
            command = ForkedCommand(*arguments(name, teacher, "--out", out, "--checkpoint-every", 3))
            # After the first checkpoint (step 3), so that the tests of damage have a second one.
            stop(command, out, random.randrange(4, STEPS // 2), signal.SIGKILL)
            assert command.returncode == -signal.SIGKILL
            made[name] = student(folder / "whole"), out
        whole, killed = made[name]
        out = folder_of_test / "out"
        shutil.copytree(unfinished(killed), unfinished(out))
        return whole, out

    return stopped


@pytest.fixture
def ssd(stopped, tmp_path) -> tuple[bytes, Path]:
    return stopped("ssd", tmp_path)


def entries(state: object, prefix: str = "") -> set[str]:
    """Return the dotted names of all entries, without those inside optimizers and random streams."""
    if not isinstance(state, dict) or prefix.endswith(("optimizer.", "random.")):
        return {prefix}
    return {entry for name, value in state.items() for entry in entries(value, f"{prefix}{name}.")}


@pytest.mark.parametrize("name", PRINTS)
def test_the_format_number_changes_with_the_entries_of_checkpoints(stopped, tmp_path, name):
    """When this fails, the entries of checkpoints have changed: increase FORMAT, and put the new hash here."""
    _, out = stopped(name, tmp_path)
    saved = Checkpoints(unfinished(out) / "checkpoints").load(print)
    names = "\n".join(sorted(entries(saved)))
    assert (FORMAT, hashlib.sha256(names.encode()).hexdigest()[:8]) == (5, PRINTS[name]), names


def test_a_run_with_another_checkpoint_format_is_refused(ssd, monkeypatch, teacher, capsys):
    _, out = ssd
    monkeypatch.setattr("dfkd_cli.compression.identity.FORMAT", 7)
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--resume", out)) == 2
    assert f"checkpoint format {FORMAT} -> 7" in capsys.readouterr().err
    assert saved_step(out) > 0


@pytest.mark.parametrize("name", METHODS)
def test_a_killed_run_ends_bit_for_bit_like_an_uninterrupted_one(stopped, monkeypatch, teacher, tmp_path, name):
    whole, out = stopped(name, tmp_path)
    assert not out.exists()
    assert 0 < saved_step(out) < STEPS
    assert dfkd(monkeypatch, *arguments(name, teacher, "--resume", out)) == 0
    assert student(out) == whole
    expected = set(WRITTEN) if METHODS[name].needs.pool else set(WRITTEN) - {"selected.csv"}
    assert {entry.name for entry in out.iterdir()} == expected
    assert not unfinished(out).exists()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert [line["time_s"] for line in lines] == sorted(line["time_s"] for line in lines)
    assert {line["step"] for line in lines} > {3, STEPS}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_five_kills_at_random_moments_change_nothing(stopped, teacher, tmp_path, name):
    whole, _ = stopped(name, tmp_path)
    out, choose = tmp_path / "killed often", random.Random(0)
    for _ in range(5):
        go_on = "--resume" if saved_step(out) >= 0 else "--out"
        before = saved_step(out)
        command = ForkedCommand(*arguments(name, teacher, go_on, out, "--checkpoint-every", 1))
        command.wait_until(lambda before=before: saved_step(out) > before or out.exists())
        time.sleep(choose.uniform(0.0, 0.2))
        command.send_signal(signal.SIGKILL)
        command.wait()
        if out.exists():
            break
    if not out.exists():
        assert ForkedCommand(*arguments(name, teacher, "--resume", out)).wait().returncode == 0
    assert student(out) == whole


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(stopped, monkeypatch, teacher, tmp_path):
    whole, out = stopped("ssd", tmp_path)[0], tmp_path / "interrupted"
    interrupted = ForkedCommand(*arguments("ssd", teacher, "--out", out, "--checkpoint-every", 3))
    said = stop(interrupted, out, 5, signal.SIGINT)
    assert interrupted.returncode == 130, said
    assert "interrupt again to stop at once" in said
    last = said.splitlines()[-1]
    assert last.startswith("error: interrupted; to continue from step ")
    assert last.endswith(f"--resume {out}")
    command = last.partition(": dfkd ")[2].split()
    assert dfkd(monkeypatch, *command) == 0
    assert student(out) == whole


def test_the_command_is_that_of_the_run_that_goes_on_after_two_moves(ssd, monkeypatch, teacher, tmp_path, capsys):
    whole, out = ssd
    for place in ("moved", "moved again"):
        (tmp_path / place).mkdir()
        file, folder = tmp_path / place / f"{place}.pt", tmp_path / place / "result"
        shutil.copy(teacher, file)
        unfinished(out).rename(unfinished(folder))
        with monkeypatch.context() as patch:
            patch.setattr(Session, "train", interrupted)
            assert dfkd(patch, *arguments("ssd", file, "--resume", folder)) == 130
        said = shlex.split(capsys.readouterr().err.splitlines()[-1].partition(": dfkd ")[2])
        assert said[:2] == ["compress", str(file)]
        assert said[-2:] == ["--resume", str(folder)]
        assert said.count("--resume") == 1
        out, teacher = folder, file
    assert dfkd(monkeypatch, *said) == 0
    assert student(out) == whole
    assert str(teacher) in shlex.split(json.loads((out / "report.json").read_text())["command"])


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        ("dfkd compress t.pt --resume=b --seed 1", "dfkd compress t.pt --seed 1 --out b"),
        ("dfkd compress t.pt --out b --resume b", "dfkd compress t.pt --out b"),
        (
            "DFKD_COMPRESS_RESUME=b DFKD_COMPRESS_EVAL='x y' dfkd compress t.pt",
            "DFKD_COMPRESS_EVAL='x y' dfkd compress t.pt --out b",
        ),
        ("DFKD_COMPRESS_OUT=b dfkd compress --resume b 't 1.pt'", "DFKD_COMPRESS_OUT=b dfkd compress 't 1.pt'"),
    ],
)
def test_the_command_of_a_resumed_run_without_resume(command, whole):
    facts: Any = {"teacher": "t", "load": LoadOptions(), "student": "0.5", "recipe": "ssd", "budget": None}
    more: Any = {"settings": (), "eval_data": None, "pool": None, "seed": 0, "device": "cpu", "precision": "fp32"}
    job = make_job(**facts, **more, out="b", command=command)
    assert continued(job, Identity("dfkd compress old.pt", {}, {})).command == whole


def test_a_run_of_other_arguments_is_refused_with_every_difference(ssd, monkeypatch, teacher, tmp_path, capsys):
    _, out = ssd
    other = tmp_path / "other.pt"
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
        torch.jit.save(torch.jit.trace(network.eval(), torch.rand(2, 1, 8, 8)), other)
    more = ("--resume", out, "--seed", 4, "--set", "train.lr=0.05", "--student", "cifar_resnet20", "--mean", "0.5")
    assert dfkd(monkeypatch, *arguments("ssd", other, *more)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "seed 0 -> 4" in said
    assert "recipe.train.lr 0.2 -> 0.05" in said
    assert "student cifar_resnet8 -> cifar_resnet20" in said
    assert "teacher.mean [0.4] -> [0.5]" in said
    assert "teacher sha256 " in said
    assert said.count(" -> ") == 5
    assert saved_step(out) > 0


def test_the_precision_that_was_measured_is_kept(ssd, monkeypatch, teacher, capsys):
    _, out = ssd
    measured = arguments("ssd", teacher, "--resume", out, "--precision", "auto")
    assert dfkd(monkeypatch, *measured) == 0
    assert "in float32" in capsys.readouterr().err
    assert json.loads((out / "report.json").read_text())["precision"] == "float32"


def test_another_precision_is_refused(ssd, monkeypatch, teacher, capsys):
    _, out = ssd
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--resume", out, "--precision", "bf16")) == 2
    assert "precision fp32 -> bf16" in capsys.readouterr().err


def test_a_new_run_where_one_is_unfinished_is_refused_with_both_ways_out(ssd, monkeypatch, teacher, capsys):
    _, out = ssd
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--out", out)) == 2
    said = capsys.readouterr().err
    assert f"--resume {out}" in said
    assert "--overwrite" in said
    assert saved_step(out) > 0


def test_overwrite_discards_the_unfinished_run_with_a_note(ssd, monkeypatch, teacher, capsys):
    whole, out = ssd
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--out", out, "--overwrite")) == 0
    assert "discarding the unfinished run" in capsys.readouterr().err
    assert student(out) == whole
    assert not unfinished(out).exists()


def test_a_damaged_checkpoint_falls_back_to_the_one_before_with_a_note(ssd, monkeypatch, teacher, capsys):
    whole, out = ssd
    newest = Checkpoints(unfinished(out) / "checkpoints").found()[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--resume", out)) == 0
    assert "is damaged" in capsys.readouterr().err
    assert student(out) == whole


def test_two_damaged_checkpoints_are_an_error_and_not_a_new_run(ssd, monkeypatch, teacher, capsys):
    _, out = ssd
    for path in Checkpoints(unfinished(out) / "checkpoints").found():
        path.write_bytes(path.read_bytes()[:-1])
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--resume", out)) == 1
    assert "every checkpoint" in capsys.readouterr().err
    assert not out.exists()


def test_a_full_disk_is_one_line_and_the_checkpoint_before_goes_on(ssd, monkeypatch, teacher, capsys):
    whole, out = ssd
    before = saved_step(out)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", full)
        assert dfkd(patch, *arguments("ssd", teacher, "--resume", out, "--checkpoint-every", 2)) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error:")] == said[-1:]
    assert "is full; free some space, then continue with --resume" in said[-1]
    assert not out.exists()
    assert saved_step(out) == before
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--resume", out)) == 0
    assert student(out) == whole


@pytest.mark.parametrize("finished", [False, True])
def test_without_an_unfinished_run_there_is_nothing_to_resume(monkeypatch, teacher, tmp_path, capsys, finished):
    out = tmp_path / "out"
    if finished:
        out.mkdir()
        (out / "report.json").write_text("{}")
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--resume", out)) == 2
    assert ("a finished result" if finished else "no unfinished run") in capsys.readouterr().err


def test_a_folder_that_another_process_writes_is_left_alone(monkeypatch, teacher, tmp_path, capsys):
    out = tmp_path / "out"
    longer = ("--checkpoint-every", 3, "--set", "train.steps=1400")
    other = ForkedCommand(*arguments("ssd", teacher, "--out", out, *longer))
    try:
        other.wait_until(lambda: saved_step(out) >= 0)
        for more in (("--resume", out), ("--out", out, "--overwrite"), ("--out", out)):
            assert dfkd(monkeypatch, *arguments("ssd", teacher, *more)) == 2
            assert "another dfkd is writing" in capsys.readouterr().err
        assert other.returncode is None
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()


def test_the_report_counts_what_came_before(ssd, monkeypatch, teacher):
    _, out = ssd
    newest = Checkpoints(unfinished(out) / "checkpoints")
    saved = newest.load(print)
    assert saved is not None
    saved["total_s"] += 1000.0
    saved["distillation"]["peak_bytes"] = 10**15
    saved["distillation"]["seconds"]["synthesis"] += 500.0
    newest.save(saved, saved["distillation"]["step"])
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--resume", out)) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["time"]["total_s"] > 1000
    assert report["time"]["synthesis_s"] > 500
    assert report["memory"]["peak_bytes"] == 10**15
    assert any("interrupted" in note for note in report["notes"])
    assert "--resume" not in report["command"]


@pytest.mark.parametrize(("flag", "value"), [("--checkpoint-every", "0"), ("--checkpoint-every", "often")])
def test_an_interval_is_a_time_or_a_number_of_steps(monkeypatch, teacher, tmp_path, capsys, flag, value):
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--out", tmp_path / "out", flag, value)) == 2
    assert "10m" in capsys.readouterr().err


def test_one_folder_may_be_spelled_in_two_ways(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert output_folder(Path("a"), tmp_path / "a") == tmp_path / "a"


def test_a_run_has_one_folder(monkeypatch, teacher, tmp_path, capsys):
    assert dfkd(monkeypatch, *arguments("ssd", teacher, "--out", tmp_path / "a", "--resume", tmp_path / "b")) == 2
    assert "different folders" in capsys.readouterr().err
