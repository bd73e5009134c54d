"""The demo of `make demo`, in fewer steps, reaches 95 % of the teacher's accuracy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the demo's digits come with scikit-learn: pip install '.[demo]'")


def test_the_demo_compresses_a_torchscript_teacher_without_its_data(tmp_path):
    command = [sys.executable, "-m", "benchmarks.demo", "--out", str(tmp_path / "demo"), "--seed", "0"]
    command += ["--steps", "160"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "demo" / "student" / "report.json").read_text())
    assert report["student"]["parameters"] <= 0.5 * report["teacher"]["parameters"]
    assert report["teacher"]["batchnorm_layers"] == 19
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("relative accuracy")]
    assert float(line.split()[2]) >= 0.95
    assert (tmp_path / "demo" / "student" / "samples.png").stat().st_size > 10_000
