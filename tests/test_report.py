"""The report holds the values that tools read, and its text states what was measured and what was not."""

import dataclasses
import json
import math

import pytest
import torch
from reports import MEASURED, POOLED, UNMEASURED

from dfkd_cli.machine.peak_memory import peak_memory_bytes
from dfkd_cli.report.images import ImagesReport
from dfkd_cli.report.markdown_report import markdown_report


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
def test_report_json_keeps_its_names(path, value):
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


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(MEASURED, agreement=math.nan).to_json()


@pytest.mark.parametrize(
    "phrase",
    [
        "**90.0% of the teacher's accuracy**",
        "| accuracy | 90.00 % | 81.00 % | 90.00 % |",
        "| parameters | 1,000 | 250 | 25.00 % |",
        "| file size | 5.00 MB | 1.25 MB | 25.00 % |",
        "**Agreement (87.65 %)** is the percentage of images",
        "![synthetic images](samples.png)",
        "dfkd compress teacher.pt --recipe ssd",
        "The teacher's weights came from --arch.",
        "| seed | 7 |",
        "| optimizer | muon |",
        'timm.create_model("local-dir:',
    ],
)
def test_the_text_states_the_results(phrase):
    assert phrase in markdown_report(MEASURED)


@pytest.mark.parametrize("phrase", ["was **not measured**", "| accuracy | - | - | - |", "no BatchNorm layers"])
def test_the_text_states_what_was_not_measured(phrase):
    assert phrase in markdown_report(UNMEASURED)


def test_the_text_states_that_the_teacher_was_never_correct():
    teacher = dataclasses.replace(MEASURED.teacher, accuracy=0.0)
    text = markdown_report(dataclasses.replace(MEASURED, relative_accuracy=None, teacher=teacher))
    assert "The teacher classified **no evaluation image correctly**" in text
    assert "not measured" not in text


def test_the_text_does_not_explain_a_missing_accuracy():
    assert "**Accuracy** is" not in markdown_report(UNMEASURED)


@pytest.mark.parametrize(
    "phrase",
    [
        "10,000 images of the pool were read; the teacher chose 4,000 of them",
        "do not show them to anyone who must not see the pool",
        "![unlabelled images](samples.png)",
        "1 min 40 s: choosing images 30 s",
        "| pool | `/data/web` |",
    ],
)
def test_the_text_names_the_pool(phrase):
    text = markdown_report(POOLED)
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
    before, command, between, evaluate, after = markdown_report(report).split("````")
    assert hostile in command
    assert hostile in evaluate
    for part in (before, between, after):
        assert "<script>" not in part
        assert "![a](" not in part
    assert r"distilled from a \`\`\` \<script\>" in before.splitlines()[0]


@pytest.mark.parametrize(
    ("layers", "text"), [(1, "The teacher has 1 BatchNorm layer, "), (2, "The teacher has 2 BatchNorm layers, ")]
)
def test_nouns_follow_their_number(layers, text):
    teacher = dataclasses.replace(MEASURED.teacher, batchnorm_layers=layers)
    assert text in markdown_report(dataclasses.replace(MEASURED, teacher=teacher))


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (ImagesReport(1, 1), "1 synthetic image was made; 1 was kept at the end."),
        (ImagesReport(2, 0), "2 synthetic images were made; 0 were kept at the end."),
        (ImagesReport(1, 1, "/pool"), "1 image of the pool was read; the teacher chose 1 of them"),
    ],
)
def test_images_are_summed_up_in_one_sentence(images, text):
    assert images.summary().startswith(text)


def test_peak_memory_is_in_bytes():
    # A process with torch in it holds more than 50 MB and, in tests, less than 50 GB: no other unit fits.
    assert 50e6 < peak_memory_bytes(torch.device("cpu")) < 50e9
