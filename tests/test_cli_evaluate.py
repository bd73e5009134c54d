"""`dfkd evaluate` from the flags to the exit code."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import dfkd_cli.cli
import dfkd_cli.evaluation.evaluate
from dfkd_cli.evaluation.accuracy import Accuracy
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.students.student import build_student, save_student

SPEC = InputSpec((1, 16, 16), (0.3,), (0.2,), 6)
SPEC_FLAGS = ["--input-size", "1x16x16", "--mean", "0.3", "--std", "0.2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder of images, a student, a state dict and a TorchScript file; all networks are random."""
    root = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    for name in "abcdef":
        (root / "data" / name).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 256, (16, 16)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "data" / name / f"{index}.png")
    torch.manual_seed(0)
    student = build_student("cifar_resnet8", SPEC)
    (root / "out").mkdir()
    save_student(student, root / "out", None, "hash", "ssd")
    teacher: Any = build_student("cifar_resnet20", SPEC).network.module
    torch.save(teacher.state_dict(), root / "teacher.pt")
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(SmallNetwork()), root / "scripted.pt")
    return root


class SmallNetwork(torch.nn.Module):
    """A network that predicts class 2 for every image."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(256, 6)
        torch.nn.init.zeros_(self.linear.weight)
        self.linear.bias.data = torch.eye(6)[2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


def dfkd(*arguments: object) -> Result:
    return CliRunner().invoke(dfkd_cli.cli.app, list(map(str, arguments)))


def test_json_is_the_only_thing_on_stdout(files):
    result = dfkd("evaluate", files / "out", "--data", files / "data", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["images"] == 24
    assert 0 <= facts["accuracy"] <= facts["accuracy_top5"] <= 1
    assert facts["parameters"] == sum(p.numel() for p in build_student("cifar_resnet8", SPEC).parameters())
    assert facts["file_bytes"] == (files / "out" / "student.safetensors").stat().st_size
    assert facts["relative_accuracy"] is facts["agreement"] is facts["teacher_accuracy"] is None


def test_a_torchscript_file_is_evaluated(files):
    result = dfkd("evaluate", files / "scripted.pt", "--data", files / "data", "--json", *SPEC_FLAGS)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["accuracy"] == pytest.approx(1 / 6)


def test_a_student_agrees_with_itself(files):
    student = files / "out" / "student.safetensors"
    result = dfkd("evaluate", student, "--data", files / "data", "--teacher", files / "out", "--json", "--max-drop", 0)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["agreement"] == 1.0


def test_flags_describe_the_teacher_of_a_student(files):
    flags = ["--arch", "cifar_resnet20", *SPEC_FLAGS]
    result = dfkd(
        "evaluate", files / "out", "--data", files / "data", "--teacher", files / "teacher.pt", *flags, "--json"
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["agreement"] is not None


def test_flags_describe_the_network_compared_with_a_student(files):
    flags = ["--arch", "cifar_resnet20", *SPEC_FLAGS]
    result = dfkd(
        "evaluate", files / "teacher.pt", "--data", files / "data", "--teacher", files / "out", *flags, "--json"
    )
    assert result.exit_code == 0, result.stderr


def test_two_foreign_networks_have_an_architecture_each(files):
    flags = ["--teacher-arch", "cifar_resnet20", *SPEC_FLAGS]
    result = dfkd(
        "evaluate", files / "scripted.pt", "--data", files / "data", "--teacher", files / "teacher.pt", *flags, "--json"
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["accuracy"] == pytest.approx(1 / 6)


def test_the_table_holds_every_figure(files):
    flags = ["--arch", "cifar_resnet20", *SPEC_FLAGS]
    result = dfkd("evaluate", files / "out", "--data", files / "data", "--teacher", files / "teacher.pt", *flags)
    assert result.exit_code == 0, result.stderr
    for phrase in ("accuracy", "top 5", "teacher's accuracy", "relative accuracy", "agreement", "parameters", "MB"):
        assert phrase in result.stdout


def test_a_narrow_terminal_cuts_no_figure(files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "12")
    result = dfkd("evaluate", files / "scripted.pt", "--data", files / "data", *SPEC_FLAGS)
    assert result.exit_code == 0, result.stderr
    assert re.search("accuracy +16.67 %", result.stdout)


@pytest.mark.parametrize(("bar", "code"), [("0.16", 0), ("0.17", 5), ("1", 5)])
def test_accuracy_gate(files, bar, code):
    flags = ["--min-accuracy", bar, "--json", *SPEC_FLAGS]
    result = dfkd("evaluate", files / "scripted.pt", "--data", files / "data", *flags)
    assert result.exit_code == code
    assert json.loads(result.stdout)["images"] == 24
    assert ("--min-accuracy" in result.stderr) == (code == 5)


def test_every_missed_gate_is_named(files, monkeypatch):
    measured = Accuracy(100, 0.5, None, 0.9, 0.5 / 0.9, 0.5)
    monkeypatch.setattr(dfkd_cli.evaluation.evaluate, "measure_accuracy", lambda *_, **__: measured)
    bars = ["--min-accuracy", "0.6", "--max-drop", "0.1", "--teacher", files / "out"]
    result = dfkd("evaluate", files / "out", "--data", files / "data", *bars)
    assert result.exit_code == 5
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert "below --min-accuracy 0.6; accuracy 0.5000 is 0.4000 below the teacher's 0.9000" in line


@pytest.mark.parametrize(
    ("student", "teacher", "allowed", "code"),
    [(0.91, 0.93, 0.02, 0), (0.9, 0.93, 0.02, 5), (0.95, 0.93, 0.0, 0), (0.9299, 0.93, 0.0, 5)],
)
def test_drop_gate(files, monkeypatch, student, teacher, allowed, code):
    measured = Accuracy(100, student, None, teacher, student / teacher, 0.5)
    monkeypatch.setattr(dfkd_cli.evaluation.evaluate, "measure_accuracy", lambda *_, **__: measured)
    result = dfkd(
        "evaluate", files / "out", "--data", files / "data", "--teacher", files / "out", "--max-drop", allowed
    )
    assert result.exit_code == code, result.stderr


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--data", "{data}", "--max-drop", "0.1"], 2, "--teacher"),
        (["--data", "{data}", "--teacher-arch", "resnet18"], 2, "--teacher"),
        (["--data", "{data}", "--min-accuracy", "90"], 2, "min-accuracy"),
        (["--data", "{data}/nowhere"], 2, "no such folder"),
        (["--data", "{data}/a"], 2, "sub-folder"),
        (["--data", "{data}", "--device", "tpu"], 2, "cpu, cuda"),
        (["--data", "{data}", "--input-size", "32"], 2, "3x32x32"),
        (["--data", "{data}", "--mean", "0.5;0.5"], 2, "commas"),
        (["--data", "{data}", "--std", "0"], 2, "--std"),
        (["--data", "{data}", "--teacher", "nowhere.pt"], 2, "nowhere.pt"),
        (["--data", "{data}", "--teacher", "{data}/a/0.png"], 3, "PNG"),
        ([], 2, "--data"),
        (["--class-order", "text"], 2, "--classes and --class-order need --data"),
        (["--skip-unreadable"], 2, "--skip-unreadable needs --data or --images"),
    ],
)
def test_mistake_is_one_line_and_its_exit_code(files, flags, code, message):
    result = dfkd("evaluate", files / "out", *[flag.format(data=files / "data") for flag in flags])
    assert result.exit_code == code
    assert result.stdout == ""
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_corrupt_image_file_is_one_line(files, tmp_path):
    shutil.copytree(files / "data", tmp_path / "data")
    (tmp_path / "data" / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = dfkd("evaluate", files / "out", "--data", tmp_path / "data")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "1.png" in result.stderr


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), 6),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 6),
        (MemoryError(), 6),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_failure_has_its_exit_code(files, monkeypatch, raised, code):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(dfkd_cli.evaluation.evaluate, "measure_accuracy", fail)
    result = dfkd("evaluate", files / "out", "--data", files / "data")
    assert result.exit_code == code
    assert result.stderr.startswith("error: ")


def test_bug_keeps_its_traceback(files, monkeypatch):
    monkeypatch.setattr(dfkd_cli.evaluation.evaluate, "measure_accuracy", lambda *_, **__: 1 // 0)
    assert isinstance(dfkd("evaluate", files / "out", "--data", files / "data").exception, ZeroDivisionError)


def test_help_lists_the_exit_codes_without_torch():
    code = (
        "import sys; sys.argv = ['dfkd', '--help']\n"
        "import dfkd_cli.cli\n"
        "try: dfkd_cli.cli.main()\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
    assert "a quality gate was missed" in done.stdout


def test_real_process_exits_with_the_code():
    code = "import sys; from dfkd_cli.cli import main; sys.argv = ['dfkd', 'evaluate', '-']; main()"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 2
