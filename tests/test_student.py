"""Students are built for the teacher's input, and dfkd and timm load the same network from the saved files."""

import hashlib
import json
import stat
from typing import Any

import pytest
import safetensors
import timm
import torch
from timm.data import resolve_data_config  # pyright: ignore[reportPrivateImportUsage]

from dfkd_cli.errors import UsageError
from dfkd_cli.loading.own_files import is_student
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.students.student import build_student, save_student


def spec(channels=3, side=32, classes=10) -> InputSpec:
    return InputSpec((channels, side, side), (0.4,) * channels, (0.2,) * channels, classes)


ARCHITECTURES = [
    ("cifar_resnet8", spec()),
    ("cifar_resnet8", spec(channels=1, side=24, classes=7)),
    ("lenet5", spec(channels=1)),
    ("cifar_wrn_16_1", spec(classes=100)),
    ("resnet10t", spec(channels=4, side=64, classes=3)),
    ("test_vit", spec(side=64, classes=6)),
    ("mobilenetv3_small_050", spec(side=64)),
    ("test_convnext", spec(channels=2, side=64)),
]
IDS = [f"{name}-{wanted.size[0]}x{wanted.size[1]}-{wanted.num_classes}" for name, wanted in ARCHITECTURES]


@pytest.mark.parametrize(("name", "wanted"), ARCHITECTURES, ids=IDS)
def test_timm_loads_the_saved_student(tmp_path, name, wanted):
    student = build_student(name, wanted)
    save_student(student, tmp_path, "teacher's hash", "recipe's hash", "ssd")
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.rand(2, *wanted.size)
    expected = student.eval()(images)
    torch.testing.assert_close(loaded((images - 0.4) / 0.2), expected)
    config = resolve_data_config(model=loaded)
    assert tuple(config["input_size"]) == wanted.size
    assert tuple(config["mean"]) == wanted.mean
    assert tuple(config["std"]) == wanted.std
    assert loaded.num_classes == wanted.num_classes


def test_a_published_folder_is_loaded_from_the_hub(tmp_path, monkeypatch):
    student = build_student("cifar_resnet8", spec())
    save_student(student, tmp_path, None, "def", "ssd")

    def download(repo_id, filename, **_):
        assert repo_id == "me/mine"
        assert (tmp_path / filename).is_file(), filename
        return str(tmp_path / filename)

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
    loaded = timm.create_model("hf-hub:me/mine", pretrained=True).eval()
    images = torch.rand(2, *spec().size)
    mean, std = student.mean, student.std
    torch.testing.assert_close(loaded((images - mean) / std), student.eval()(images))


def test_metadata_describes_the_student(tmp_path):
    save_student(build_student("cifar_resnet8", spec()), tmp_path, "abc", "def", "ssd")
    with safetensors.safe_open(tmp_path / "student.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["dfkd"])
    assert facts.pop("version")
    assert facts == {
        "arch": "cifar_resnet8",
        "num_classes": 10,
        "input_size": [3, 32, 32],
        "mean": [0.4] * 3,
        "std": [0.2] * 3,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "crop_mode": "center",
        "teacher_sha256": "abc",
        "recipe_sha256": "def",
        "method": "ssd",
    }


def test_the_files_of_a_student_by_name_are_readable(tmp_path):
    save_student(build_student("lenet5", spec(channels=1)), tmp_path, None, "def", "ssd")
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["config.json", "model.safetensors", "student.safetensors"]
    assert all(path.stat().st_mode & stat.S_IRUSR for path in tmp_path.iterdir())


def test_the_returned_hash_is_that_of_the_file(tmp_path):
    sha256 = save_student(build_student("lenet5", spec(channels=1)), tmp_path, None, "def", "ssd")
    assert sha256 == hashlib.sha256((tmp_path / "student.safetensors").read_bytes()).hexdigest()


def test_channels_last_and_tied_weights_are_saved(tmp_path):
    student = build_student("cifar_resnet8", spec()).to(memory_format=torch.channels_last)
    body: Any = student.network.module
    blocks = [module for module in body.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    blocks[1].weight = blocks[0].weight
    save_student(student, tmp_path, None, "def", "ssd")
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    for key, value in body.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value)


def test_new_student_is_in_training_mode():
    assert build_student("cifar_resnet8", spec()).training


def test_weights_depend_on_the_seed():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([weight.flatten() for weight in build_student("lenet5", spec(channels=1)).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("cifar_resnet9", spec(), "did you mean .*cifar_resnet8"),
        ("zzzzzz", spec(), "unknown architecture; use any timm model or cifar_resnet8"),
        ("resnet18.a1_in1k", spec(), "use resnet18"),
        ("hf-hub:timm/resnet18", spec(), "unknown architecture"),
        ("lenet5", spec(channels=1, side=8), r"lenet5 cannot .*1x8x8"),
        ("test_vit", spec(side=8), r"test_vit cannot .*3x8x8"),
        ("test_convnext", spec(side=8), r"test_convnext cannot .*3x8x8"),
    ],
)
def test_unusable_architecture_is_refused(name, wanted, message):
    with pytest.raises(UsageError, match=message) as caught:
        build_student(name, wanted)
    assert "\n" not in str(caught.value)


def test_the_prefix_timm_is_accepted():
    assert build_student("timm:cifar_resnet8", spec()).origin.arch == "cifar_resnet8"


def test_students_are_distinguished_from_other_files(tmp_path):
    save_student(build_student("lenet5", spec(channels=1)), tmp_path, None, "def", "ssd")
    (tmp_path / "other.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (tmp_path / "broken").write_bytes(b"<html>")
    assert is_student(str(tmp_path))
    assert is_student(str(tmp_path / "student.safetensors"))
    assert not any(map(is_student, ["timm:resnet18", str(tmp_path / "other.safetensors"), str(tmp_path / "broken")]))
