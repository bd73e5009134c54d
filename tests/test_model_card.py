"""The model card is read by the hub and by people, and claims only what was measured."""

import dataclasses
from typing import Any

import pytest
import yaml
from PIL import Image
from test_report import MEASURED, POOLED, UNMEASURED

from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.report.model_card import hub_name, model_card


def pictures(where: str) -> LabelledImages:
    return LabelledImages(where, ("a", "b"), (0, 1, 1), (1, 8, 8), lambda _: Image.new("L", (8, 8)))


def front_matter(card: str) -> dict[str, Any]:
    start, matter, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(matter)


def from_source(source: str):
    return dataclasses.replace(MEASURED, teacher=dataclasses.replace(MEASURED.teacher, source=source))


def test_front_matter_is_what_the_hub_reads():
    found = front_matter(model_card(MEASURED, pictures("cifar10:/data")))
    assert found["library_name"] == "timm"
    assert found["pipeline_tag"] == "image-classification"
    assert "license" not in found
    assert "base_model" not in found
    ((result,),) = [model["results"] for model in found["model-index"]]
    assert result["dataset"] == {"name": "cifar10", "type": "cifar10"}
    assert result["metrics"] == [{"type": "accuracy", "name": "top-1 accuracy", "value": 0.81}]


def test_a_folder_is_named_without_the_way_to_it(tmp_path):
    folder = tmp_path / "birds" / "test"
    folder.mkdir(parents=True)
    (model,) = front_matter(model_card(MEASURED, pictures(str(folder))))["model-index"]
    assert model["results"][0]["dataset"] == {"name": "birds/test", "type": "imagefolder"}


def test_a_teacher_that_was_never_right_is_told_of():
    report = dataclasses.replace(
        MEASURED, relative_accuracy=None, teacher=dataclasses.replace(MEASURED.teacher, accuracy=0.0)
    )
    card = model_card(report, pictures("cifar10:/data"))
    assert "an accuracy of **81.00 %**, where the teacher was never right, on" in card
    assert "not measured" not in card


def test_what_was_not_measured_is_not_claimed():
    card = model_card(UNMEASURED, None)
    assert not {"metrics", "model-index"} & set(front_matter(card))
    assert "**was not measured**" in card


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf-hub:timm/resnet34.a1_in1k", "timm/resnet34.a1_in1k"),
        ("hf-hub:me/mine@v2", "me/mine"),
        ("timm:resnet34", "timm/resnet34.a1_in1k"),
        ("timm:resnet34.a3_in1k", "timm/resnet34.a3_in1k"),
        ("timm:cifar_resnet20", None),
        ("timm:no_such_network", None),
        ("teacher.pt", None),
        ("C:\\teacher.pt", None),
    ],
)
def test_the_base_model_is_a_name_on_the_hub(source, name):
    assert hub_name(source) == name
    assert front_matter(model_card(from_source(source), None)).get("base_model") == name


@pytest.mark.parametrize(
    "phrase",
    [
        "| accuracy | 90.00 % | 81.00 % | 90.00 % |",
        "**90.00 % of the teacher's accuracy** on 3 pictures",
        'timm.create_model("local-dir:THIS_FOLDER", pretrained=True)',
        "import dfkd_cli.models",
        "20,000 synthetic images were made; 5,000 were kept at the end. 1,234 steps",
        "a" * 64,
        "can reveal properties",
        "```\ndfkd compress teacher.pt --recipe ssd --student cifar_resnet8 --out out\n```",
    ],
)
def test_people_are_told(phrase):
    assert phrase in model_card(MEASURED, pictures("mnist:."))


@pytest.mark.parametrize(
    "phrase",
    [
        "it learned from unlabelled pictures that the teacher chose from a pool and named",
        "the teacher chose 4,000, which selected.csv lists. 1,234 steps",
        "Take them out before you publish this folder",
    ],
)
def test_who_gets_it_is_told_of_the_pool(phrase):
    card = model_card(POOLED, pictures("mnist:."))
    assert phrase in card
    assert "synthetic" not in card


def test_a_network_that_timm_has_needs_no_import_of_ours():
    other = dataclasses.replace(MEASURED, student=dataclasses.replace(MEASURED.student, arch="resnet18"))
    assert "dfkd_cli" not in model_card(other, None)


def test_hostile_text_stays_text():
    hostile = "x\n---\nlicense: mit\n```\n<script>alert(1)</script> ![a](http://x/y)"
    report = dataclasses.replace(from_source(hostile), notes=(hostile,), command=hostile)
    card = model_card(report, pictures(hostile))
    assert "license" not in front_matter(card)
    before, command, after = card.split("````")
    assert hostile in command
    for part in (before.split("---\n", 2)[2], after):
        assert "<script>" not in part
        assert "![a](" not in part
