"""The Python interface: the same results as the commands, quick to import, errors that can be caught."""

import json
import shlex
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import LOOK, SMALL, TINY_RUN, dfkd, save_teacher
from PIL import Image

import dfkd_cli
from dfkd_cli import compress, evaluate, load
from dfkd_cli.compression.make_job import make_job, overrides
from dfkd_cli.errors import DfkdError, RecipeMismatchError, TeacherError, UsageError
from dfkd_cli.loading import LoadOptions

FACTS: dict[str, Any] = {"input_size": (1, 8, 8), "mean": [0.4], "std": [0.3]}  # those of LOOK


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with a teacher and labelled images."""
    root = tmp_path_factory.mktemp("api")
    save_teacher(root / "teacher.pt")
    for number, name in enumerate("abc"):
        (root / "images" / name).mkdir(parents=True)
        for shade in range(4):
            Image.new("L", (8, 8), 60 * shade + 20 * number).save(root / "images" / name / f"{shade}.png")
    return root


class Recorder:
    """A listener that keeps what it receives."""

    def __init__(self):
        self.notes, self.events = [], []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def event(self, event: Any) -> None:
        self.events.append(event)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def lasting(report: dict[str, Any]) -> dict[str, Any]:
    """The values of a report that are the same in every run."""
    return {name: value for name, value in report.items() if name not in ("time", "memory", "command")}


def test_compress_gives_the_result_of_the_command(files, tmp_path):
    told = ["--student", "cifar_resnet8", *LOOK, *TINY_RUN, "--eval", files / "images", "--seed", 3]
    result = dfkd("compress", files / "teacher.pt", *told, "--out", tmp_path / "command", "--json")
    assert result.exit_code == 0, result.stderr
    recorder = Recorder()
    report = compress(
        files / "teacher.pt",
        student="cifar_resnet8",
        out=tmp_path / "api",
        settings=SMALL,
        eval_data=files / "images",
        seed=3,
        listener=recorder,
        **FACTS,
    )
    assert report is not None
    assert lasting(json.loads(json.dumps(asdict(report)))) == lasting(json.loads(result.stdout))
    assert json.loads((tmp_path / "api" / "report.json").read_text()) == json.loads(json.dumps(asdict(report)))
    weights = [(tmp_path / name / "student.safetensors").read_bytes() for name in ("command", "api")]
    assert weights[0] == weights[1]
    assert recorder.notes[0].startswith("teacher: TorchScript")
    assert recorder.events[-1].step == report.steps == 4


def test_the_command_in_the_report_repeats_the_run(files, tmp_path):
    settings: dict[str, Any] = {"train": {"steps": 3, "lr": 1e-05}, "train.compile": "off"}
    settings |= {key: value for key, _, value in (word.partition("=") for word in SMALL[1:])}
    out = tmp_path / "out"
    report = compress(files / "teacher.pt", student="cifar_resnet8", out=out, settings=settings, seed=5, **FACTS)
    assert report is not None
    words = shlex.split(report.command)
    assert words[:3] == ["dfkd", "compress", str(files / "teacher.pt")]
    result = dfkd(*words[1:], "--overwrite", "--json")
    assert result.exit_code == 0, result.stderr
    again = json.loads(result.stdout)
    assert (again["steps"], again["student"]["sha256"]) == (3, report.student.sha256)


def test_evaluate_gives_the_result_of_the_command(files):
    told = [files / "teacher.pt", *LOOK, "--data", files / "images", "--teacher", files / "teacher.pt", "--json"]
    result = dfkd("evaluate", *told)
    assert result.exit_code == 0, result.stderr
    evaluation = evaluate(files / "teacher.pt", files / "images", teacher=files / "teacher.pt", batch_size=5, **FACTS)
    assert json.loads(json.dumps(asdict(evaluation))) == json.loads(result.stdout)
    assert (evaluation.images, evaluation.agreement) == (12, 1.0)


def test_facts_and_notes_of_evaluate_are_those_of_the_network_that_dfkd_did_not_write(files, tmp_path):
    compress(files / "teacher.pt", student="cifar_resnet8", out=tmp_path / "out", settings=SMALL, **FACTS)
    notes: list[str] = []
    facts: dict[str, Any] = FACTS | {"arch": "cifar_resnet20"}
    one = evaluate(tmp_path / "out", files / "images", teacher=files / "teacher.pt", note=notes.append, **facts)
    assert any("--arch cifar_resnet20" in note for note in notes)
    other = evaluate(files / "teacher.pt", files / "images", teacher=tmp_path / "out", **facts)
    assert (one.accuracy, one.teacher_accuracy) == (other.teacher_accuracy, other.accuracy)


def test_load_returns_the_logits_of_the_network_with_its_normalisation_inside(files):
    images = torch.rand(6, 1, 8, 8)
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
        teacher = torch.jit.load(files / "teacher.pt")
    network = load(files / "teacher.pt", **FACTS)
    assert isinstance(network, torch.nn.Module)
    assert not network.training
    torch.testing.assert_close(network(images), teacher((images - 0.4) / 0.3))
    assert not torch.allclose(network(images), teacher(images))


def test_load_reads_a_student_without_further_facts(files, tmp_path):
    compress(files / "teacher.pt", student="cifar_resnet8", out=tmp_path / "out", settings=SMALL, **FACTS)
    student = load(tmp_path / "out")
    assert (student.spec.size, student.spec.mean) == ((1, 8, 8), (0.4,))
    assert student(torch.rand(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("more", "kind", "message"),
    [
        ({"budget": "soon"}, UsageError, "90s, 30m or 2h"),
        ({"checkpoint_every": "often"}, UsageError, "10m"),
        ({"settings": {"train.lrr": 1}}, UsageError, "did you mean 'lr'"),
        ({"settings": "train.lrr=1"}, UsageError, "did you mean 'lr'"),
        ({"student": "cifar_resnet9"}, UsageError, "cifar_resnet8"),
        ({"resume": True}, UsageError, "no unfinished run"),
        ({"num_classes": 7}, DfkdError, "7 classes"),
        ({"input_size": (3, 8, 8)}, TeacherError, "expected input"),
    ],
)
def test_mistakes_are_errors_of_dfkd_and_nothing_is_written(files, tmp_path, more, kind, message):
    told: dict[str, Any] = {"student": "cifar_resnet8", "settings": SMALL, **FACTS} | more
    with pytest.raises(kind) as caught:
        compress(files / "teacher.pt", out=tmp_path / "out", **told)
    assert isinstance(caught.value, DfkdError)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_recipe_that_does_not_fit_is_an_error_of_its_own(tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    torch.save(network, tmp_path / "flat.pt")
    told: dict[str, Any] = {"student": "cifar_resnet8", "trust_pickle": True, **FACTS}
    with pytest.raises(RecipeMismatchError, match=r"csd needs feature maps.*recipes that fit"):
        compress(tmp_path / "flat.pt", out=tmp_path / "out", recipe="csd", **told)


def test_evaluate_and_load_raise_errors_of_dfkd(files, tmp_path):
    with pytest.raises(UsageError, match="--teacher-arch needs --teacher"):
        evaluate(files / "teacher.pt", files / "images", teacher_arch="resnet18", **FACTS)
    with pytest.raises(UsageError, match="no such folder"):
        evaluate(files / "teacher.pt", tmp_path / "nowhere", **FACTS)
    with pytest.raises(UsageError, match="--mean"):
        load(files / "teacher.pt")
    (tmp_path / "broken.pt").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(TeacherError, match="HTML"):
        load(tmp_path / "broken.pt")


def test_settings_are_a_mapping_or_texts():
    assert overrides({"train": {"lr": 0.05, "budget": None}, "options.weights.bn": 1e-05, "train.compile": "off"}) == [
        "train.lr=0.05",
        "train.budget=null",
        "options.weights.bn=1e-05",
        "train.compile=off",
    ]
    assert overrides(["train.lr=1", "train.lr=2"]) == ["train.lr=1", "train.lr=2"]
    assert overrides("train.lr=1") == ["train.lr=1"]


@pytest.mark.parametrize(("budget", "seconds"), [("30m", 1800.0), (90, 90.0)])
def test_a_budget_is_a_text_or_seconds(budget, seconds):
    told: dict[str, Any] = {"recipe": "ssd", "settings": (), "eval_data": None, "pool": None, "seed": 0}
    where: dict[str, Any] = {"out": "out", "device": "auto", "precision": "auto"}
    job = make_job(teacher="t.pt", load=LoadOptions(), student="resnet18", budget=budget, **told, **where)
    assert job.overrides == (f"train.budget={seconds}",)
    assert f"--set train.budget={seconds}" in job.command


def test_importing_the_package_imports_no_torch_before_a_function_is_used():
    code = "import sys, dfkd_cli; print('torch' in sys.modules); dfkd_cli.load; print('torch' in sys.modules)"
    done = python("-c", code)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_the_package_lists_its_functions_and_refuses_other_names():
    assert {"compress", "evaluate", "load", "__version__"} <= set(dir(dfkd_cli))
    assert set(dfkd_cli.__all__) == {"compress", "evaluate", "load", "__version__"}
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = dfkd_cli.nothing_like_it


def test_a_run_from_python_leaves_the_limits_of_the_process_alone(files, tmp_path):
    code = (
        "import resource, sys; from dfkd_cli import compress\n"
        "before = resource.getrlimit(resource.RLIMIT_DATA)\n"
        f"compress(sys.argv[1], student='cifar_resnet8', out=sys.argv[2], settings={SMALL!r}, **{FACTS!r})\n"
        "print(resource.getrlimit(resource.RLIMIT_DATA) == before)"
    )
    done = python("-c", code, str(files / "teacher.pt"), str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr == ""


def test_the_package_can_be_run_as_a_module():
    done = python("-m", "dfkd_cli", "--version")
    assert (done.returncode, done.stdout) == (0, f"dfkd {dfkd_cli.__version__}\n")
    assert python("-m", "dfkd_cli", "evalute").returncode == 2
