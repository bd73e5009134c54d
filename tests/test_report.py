"""The report holds what other tools read, and tells people what was and what was not measured."""

import dataclasses
import json
import math

import pytest
import torch

from dfkd_cli.machine.peak_memory import peak_memory_bytes
from dfkd_cli.report.images import ImagesReport
from dfkd_cli.report.report import (
    ON_EVALUATION_DATA,
    MemoryReport,
    RecipeReport,
    Report,
    StudentReport,
    TeacherReport,
    TimeReport,
    write_report,
)

MEASURED = Report(
    relative_accuracy=0.9,
    agreement=0.8765,
    agreement_on=ON_EVALUATION_DATA,
    teacher=TeacherReport("teacher.pt", "TorchScript", None, 0.9, 1000, 3, "a" * 64, 5_000_000),
    student=StudentReport("cifar_resnet8", 0.81, 250, "b" * 64, 1_250_000),
    images=ImagesReport(generated=20_000, kept=5_000),
    time=TimeReport(total_s=100.0, synthesis_s=30.0, distillation_s=60.0),
    memory=MemoryReport(peak_bytes=2_000_000_000),
    recipe=RecipeReport("ssd", "c" * 64),
    steps=1234,
    seed=7,
    device="cpu",
    precision="fp32",
    optimizer="muon",
    command="dfkd compress teacher.pt --recipe ssd --student cifar_resnet8 --out out",
    notes=("The teacher's weights came from --arch.",),
)
UNMEASURED = dataclasses.replace(
    MEASURED,
    relative_accuracy=None,
    agreement_on=MEASURED.images.wording.measured_on,
    teacher=dataclasses.replace(MEASURED.teacher, accuracy=None, batchnorm_layers=0, file_bytes=None, sha256=None),
    student=dataclasses.replace(MEASURED.student, accuracy=None),
)
POOLED = dataclasses.replace(
    MEASURED,
    images=ImagesReport(generated=10_000, kept=4_000, pool="/data/web"),
    recipe=RecipeReport("unlabeled", "c" * 64),
    command="dfkd compress teacher.pt --recipe unlabeled --pool /data/web --student cifar_resnet8 --out out",
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("relative_accuracy", 0.9),
        ("agreement", 0.8765),
        ("teacher.accuracy", 0.9),
        ("teacher.parameters", 1000),
        ("teacher.batchnorm_layers", 3),
        ("teacher.sha256", "a" * 64),
        ("student.accuracy", 0.81),
        ("student.parameters", 250),
        ("student.sha256", "b" * 64),
        ("images.generated", 20_000),
        ("images.kept", 5_000),
        ("time.total_s", 100.0),
        ("time.synthesis_s", 30.0),
        ("time.distillation_s", 60.0),
        ("memory.peak_bytes", 2_000_000_000),
        ("optimizer", "muon"),
    ],
)
def test_names_that_other_tools_rely_on(path, value):
    found = json.loads(MEASURED.to_json())
    for name in path.split("."):
        found = found[name]
    assert found == value


def test_accuracies_are_null_without_evaluation_data():
    found = json.loads(UNMEASURED.to_json())
    assert found["relative_accuracy"] is None
    assert found["teacher"]["accuracy"] is None
    assert found["student"]["accuracy"] is None
    assert found["agreement_on"] == "fresh synthetic images (not a measure of accuracy)"


def test_versions_are_in_the_report():
    assert set(json.loads(MEASURED.to_json())["versions"]) == {"dfkd", "torch", "timm", "python"}


def test_values_that_are_not_finite_are_no_report():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(MEASURED, agreement=math.nan).to_json()


@pytest.mark.parametrize(
    "phrase",
    [
        "**90.0% of the teacher's accuracy**",
        "| accuracy | 90.00 % | 81.00 % | 90.00 % |",
        "| parameters | 1,000 | 250 | 25.00 % |",
        "| file size | 5.00 MB | 1.25 MB | 25.00 % |",
        "Agreement 87.65 %",
        "![synthetic images](samples.png)",
        "dfkd compress teacher.pt --recipe ssd",
        "The teacher's weights came from --arch.",
        "| seed | 7 |",
        "| optimizer | muon |",
        'timm.create_model("local-dir:',
    ],
)
def test_text_tells_people_the_result(phrase):
    assert phrase in MEASURED.to_markdown()


@pytest.mark.parametrize("phrase", ["was **not measured**", "| accuracy | - | - | - |", "no BatchNorm layers"])
def test_text_says_what_was_not_measured(phrase):
    assert phrase in UNMEASURED.to_markdown()


def test_text_says_that_the_teacher_was_never_right():
    teacher = dataclasses.replace(MEASURED.teacher, accuracy=0.0)
    text = dataclasses.replace(MEASURED, relative_accuracy=None, teacher=teacher).to_markdown()
    assert "The teacher was **right on none** of the labelled pictures" in text
    assert "not measured" not in text


def test_text_explains_no_accuracy_that_is_not_there():
    assert "**Accuracy** is" not in UNMEASURED.to_markdown()


@pytest.mark.parametrize(
    "phrase",
    [
        "10,000 unlabelled pictures of the pool were seen; the teacher chose 4,000",
        "show them to nobody who must not see the pool",
        "![unlabelled pictures](samples.png)",
        "choosing pictures 30 s",
        "| pool | `/data/web` |",
    ],
)
def test_text_says_that_a_pool_was_learned_from(phrase):
    text = POOLED.to_markdown()
    assert phrase in text
    assert "synthetic" not in text


def test_hostile_text_stays_text():
    hostile = "a\n```\n<script>alert(1)</script>|![a](http://x/y).pt"
    report = dataclasses.replace(
        MEASURED,
        teacher=dataclasses.replace(MEASURED.teacher, source=hostile),
        notes=(hostile,),
        command=hostile,
    )
    before, command, between, evaluate, after = report.to_markdown().split("````")
    assert hostile in command
    assert hostile in evaluate
    for part in (before, between, after):
        assert "<script>" not in part
        assert "![a](" not in part
    assert r"distilled from a \`\`\` \<script\>" in before.splitlines()[0]


def test_both_files_are_written(tmp_path):
    write_report(MEASURED, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
    assert json.loads((tmp_path / "report.json").read_text())["steps"] == 1234


def test_peak_memory_is_in_bytes():
    # A process with torch in it holds more than 50 MB and, in tests, less than 50 GB: no other unit fits.
    assert 50e6 < peak_memory_bytes(torch.device("cpu")) < 50e9
