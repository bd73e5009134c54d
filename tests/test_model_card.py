"""The model card has metadata that the hub reads, and states only what was measured."""

import dataclasses
from typing import Any

import pytest
import yaml
from PIL import Image
from reports import MEASURED, POOLED, UNMEASURED

from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.report.model_card import hub_name, model_card


def labelled(where: str) -> LabelledImages:
    spec = InputSpec((1, 8, 8), (0.0,), (1.0,), 2)
    return LabelledImages(where, ("a", "b"), (0, 1, 1), spec, lambda _: Image.new("L", (8, 8)))


def front_matter(card: str) -> dict[str, Any]:
    start, matter, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(matter)


def from_source(source: str):
    return dataclasses.replace(MEASURED, teacher=dataclasses.replace(MEASURED.teacher, source=source))


def test_front_matter_is_what_the_hub_reads():
    found = front_matter(model_card(MEASURED, labelled("cifar10:/data")))
    assert found["library_name"] == "timm"
    assert found["pipeline_tag"] == "image-classification"
    assert "license" not in found
    assert "base_model" not in found
    ((result,),) = [model["results"] for model in found["model-index"]]
    assert result["dataset"] == {"name": "cifar10", "type": "cifar10"}
    assert result["metrics"] == [{"type": "accuracy", "name": "top-1 accuracy", "value": 0.81}]


def test_a_folder_is_named_without_the_path_to_it(tmp_path):
    folder = tmp_path / "birds" / "test"
    folder.mkdir(parents=True)
    (model,) = front_matter(model_card(MEASURED, labelled(str(folder))))["model-index"]
    assert model["results"][0]["dataset"] == {"name": "birds/test", "type": "imagefolder"}


def test_the_card_states_that_the_teacher_was_never_correct():
    report = dataclasses.replace(
        MEASURED, relative_accuracy=None, teacher=dataclasses.replace(MEASURED.teacher, accuracy=0.0)
    )
    card = model_card(report, labelled("cifar10:/data"))
    assert "an accuracy of **81.00 %** (the teacher's is 0) on" in card
    assert "not measured" not in card


def test_the_card_states_what_was_not_measured():
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
        "**90.00 % of the teacher's accuracy** on 3 images",
        'timm.create_model("local-dir:THIS_FOLDER", pretrained=True)',
        "import dfkd_cli.models",
        "20,000 synthetic images were made; 5,000 were kept at the end. The student was trained for 1,234 steps in",
        "a" * 64,
        "can reveal properties",
        "choose one before you publish this folder",
        "```\ndfkd compress teacher.pt --recipe ssd --student cifar_resnet8 --out out\n```",
    ],
)
def test_the_card_states_the_facts(phrase):
    assert phrase in model_card(MEASURED, labelled("mnist:."))


@pytest.mark.parametrize(
    "phrase",
    [
        "learned from unlabelled images of a pool, with the teacher's predictions as targets.",
        "the teacher chose 4,000 of them, which selected.csv lists. The student was trained for 1,234 steps",
        "Remove them before you publish this folder",
    ],
)
def test_the_card_names_the_pool(phrase):
    card = model_card(POOLED, labelled("mnist:."))
    assert phrase in card
    assert "synthetic" not in card


def test_an_architecture_of_timm_needs_no_import_of_dfkd():
    other = dataclasses.replace(MEASURED, student=dataclasses.replace(MEASURED.student, arch="resnet18"))
    assert "dfkd_cli" not in model_card(other, None)


def test_hostile_text_stays_text():
    hostile = "x\n---\nlicense: mit\n```\n<script>alert(1)</script> ![a](http://x/y)"
    report = dataclasses.replace(from_source(hostile), notes=(hostile,), command=hostile)
    card = model_card(report, labelled(hostile))
    assert "license" not in front_matter(card)
    before, command, after = card.split("````")
    assert hostile in command
    for part in (before.split("---\n", 2)[2], after):
        assert "<script>" not in part
        assert "![a](" not in part
