"""The README's pipelines, run as they are printed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from command_line import SMALL, dfkd
from PIL import Image
from torch import nn

README = (Path(__file__).parent.parent / "README.md").read_text()
GATE = 0.7  # as printed there


def example(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return block


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """What the examples expect to find: teacher.pt2's like, pictures, and a recipe, here a tiny one."""
    folder = tmp_path_factory.mktemp("readme")
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    batch = {0: torch.export.Dim.DYNAMIC}
    network = nn.Sequential(*layers).eval()
    program = torch.export.export(network, (torch.rand(4, 3, 32, 32),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "teacher.pt")
    for name in ("a", "b"):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (32, 32), (90 * number, 80, ord(name))).save(folder / "pictures" / name / f"{number}.png")
    settings = [part for value in SMALL for part in ("--set", value)]
    (folder / "my.yaml").write_text(dfkd("recipes", "show", "ssd", *settings).stdout)
    return folder


@pytest.fixture
def folder(original, tmp_path, monkeypatch) -> Path:
    """A copy to work in, where `dfkd` is the installed command."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return shutil.copytree(original, tmp_path / "work")


def run(script: str, folder: Path, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # GitHub's own way of calling bash.
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | (variables or {}),
        check=False,
    )


def test_the_shell_script_ends_as_its_gate_says(folder):
    done = run(example("sh"), folder)
    gate = json.loads((folder / "gate.json").read_text())
    assert json.loads((folder / "compress.json").read_text())["steps"] == 4
    assert done.returncode == (0 if gate["accuracy"] >= GATE else 1), done.stderr
    assert ("too weak" in done.stdout) == (gate["accuracy"] < GATE)


def test_the_steps_of_the_github_job_end_as_the_gate_says(folder):
    (job,) = yaml.safe_load(example("yaml"))["jobs"].values()
    scripts = [step["run"] for step in job["steps"] if "run" in step and not step["run"].startswith("pip install")]
    compressed, judged = (
        run(script, folder, {name: str(value) for name, value in job["env"].items()}) for script in scripts
    )
    assert compressed.returncode == 0, compressed.stderr
    assert "training" not in compressed.stderr
    gate = json.loads((folder / "gate.json").read_text())
    assert judged.returncode == (0 if gate["accuracy"] >= GATE else 5), judged.stderr
