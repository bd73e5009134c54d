"""The examples in README.md, docs/pipelines.md and docs/python.md, run as they are printed."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from command_line import SMALL, dfkd, save_teacher
from documents import ROOT, Block, blocks, commands
from forked_path import folder_with_command
from PIL import Image, ImageEnhance
from torch import nn

GATE = 0.7  # of docs/pipelines.md
TUTORIAL_GATE = 0.9


def example(document: str, language: str) -> str:
    """Return the only code block of a language in a document."""
    (block,) = (block for block in blocks((ROOT / document).read_text()) if block.language == language)
    return block.code


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """The files that the pipelines expect: a teacher, labelled images, and a recipe, here a tiny one."""
    folder = tmp_path_factory.mktemp("pipelines")
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    batch = {0: torch.export.Dim.DYNAMIC}
    network = nn.Sequential(*layers).eval()
    program = torch.export.export(network, (torch.rand(4, 3, 32, 32),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "teacher.pt")
    save_images(folder / "images", ("a", "b"), Image.new("RGB", (32, 32), (90, 80, 70)))
    settings = [part for value in SMALL for part in ("--set", value)]
    (folder / "my.yaml").write_text(dfkd("recipes", "show", "ssd", *settings).stdout)
    return folder


def save_images(folder: Path, classes: tuple[str, ...], image: Image.Image) -> None:
    """Write three brighter and brighter copies of an image for each class."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            ImageEnhance.Brightness(image).enhance(1.0 / (3 - number)).save(folder / name / f"{number}.png")


@pytest.fixture
def folder(original, tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy to work in, where `dfkd` is a command on the path."""
    monkeypatch.chdir(shutil.copytree(original, tmp_path / "work"))
    with folder_with_command() as path:
        monkeypatch.setenv("PATH", str(path), prepend=os.pathsep)
        yield tmp_path / "work"


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
    done = run(example("docs/pipelines.md", "sh"), folder)
    gate = json.loads((folder / "gate.json").read_text())
    assert json.loads((folder / "compress.json").read_text())["steps"] == 4
    assert done.returncode == (0 if gate["accuracy"] >= GATE else 1), done.stderr
    assert ("too weak" in done.stdout) == (gate["accuracy"] < GATE)


def test_the_steps_of_the_github_job_end_as_the_gate_says(folder):
    (job,) = yaml.safe_load(example("docs/pipelines.md", "yaml"))["jobs"].values()
    scripts = [step["run"] for step in job["steps"] if "run" in step and not step["run"].startswith("pip install")]
    compressed, judged = (
        run(script, folder, {name: str(value) for name, value in job["env"].items()}) for script in scripts
    )
    assert compressed.returncode == 0, compressed.stderr
    assert "training" not in compressed.stderr
    gate = json.loads((folder / "gate.json").read_text())
    assert judged.returncode == (0 if gate["accuracy"] >= GATE else 5), judged.stderr


def test_the_python_page_runs(folder, capsys):
    code = "\n".join(
        block.code for block in blocks((ROOT / "docs/python.md").read_text()) if block.language == "python"
    )
    exec(compile(code, "docs/python.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "step 4, 100%" in printed
    assert printed.endswith(" 2\n")  # the exit code of the last example


def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo = tmp_path / "out" / "demo"
    demo.mkdir(parents=True)
    save_teacher(demo / "teacher.pt")
    save_images(demo / "held-out", ("0", "1", "2"), Image.new("L", (8, 8), 150))
    for command in ("PLAN", "COMPRESS"):
        monkeypatch.setenv(f"DFKD_{command}_SET", " ".join(SMALL))
    monkeypatch.setenv("DFKD_BENCHMARK_SECONDS", "0.1")

    results = {
        words[1]: dfkd(*in_seconds(words[1:])) for words in commands(Block("bash", example("README.md", "bash")))
    }

    for command in ("inspect", "plan", "compress", "export", "benchmark"):
        assert results[command].exit_code == 0, results[command].output
    measured = json.loads(dfkd("evaluate", "out/mine", "--data", "out/demo/held-out", "--json").stdout)
    assert results["evaluate"].exit_code == (0 if measured["accuracy"] >= TUTORIAL_GATE else 5)
    assert {"report.html", "samples.png", "student.pt"} <= {path.name for path in (tmp_path / "out/mine").iterdir()}


def in_seconds(words: list[str]) -> list[str]:
    """Return a command line without the budget of `compress`, which runs the steps of SMALL then."""
    return [word for word in words if word not in ("--budget", "2m")] if words[0] == "compress" else words
