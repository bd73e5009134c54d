"""Images are scaled and cropped as the file of a network states, with the pixels of timm, and the student keeps it."""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from command_line import LOOK, TINY_RUN, dfkd
from PIL import Image
from safetensors.torch import save_file
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform

from dfkd_cli.data.fitting import fitted
from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.export.export import facts
from dfkd_cli.export.job import ExportJob
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.networks.classifier import InputSpec, Preprocessing
from dfkd_cli.students.student import build_student, save_student

SPEC = InputSpec((3, 32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 3)
BICUBIC = Preprocessing(0.8, "bicubic", "center")


def noise(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Return a photograph-like image: smooth noise."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("size", [(32, 32), (40, 40), (63, 40), (41, 64), (20, 90), (300, 200)])
@pytest.mark.parametrize("wanted", [(32, 32), (24, 40), (7, 7)])
def test_the_pixels_are_those_of_timm(size, wanted):
    image, mean = noise(*size), (0.5, 0.4, 0.3)
    for share in (1.0, 0.95, 0.8, 0.4):
        for mode in ("center", "squash", "border"):
            for filter_name in ("bilinear", "bicubic"):
                chosen = {"crop_pct": share, "interpolation": filter_name, "crop_mode": mode}
                timms: Any = create_transform((3, *wanted), is_training=False, use_prefetcher=True, mean=mean, **chosen)
                expected = timms(image).permute(1, 2, 0).numpy()
                spec = InputSpec((3, *wanted), mean, (1.0,) * 3, 2, preprocessing=Preprocessing(**chosen))
                np.testing.assert_array_equal(fitted(image, spec), expected, err_msg=str(chosen))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_a_border_has_the_colour_of_the_mean_in_every_mode(mode):
    channels = len(mode)
    mean = (0.2, 0.4, 0.6, 0.8)[:channels]
    spec = InputSpec((channels, 8, 8), mean, (1.0,) * channels, 2, preprocessing=Preprocessing(crop_mode="border"))
    pixels = fitted(noise(16, 8, mode=mode), spec)
    assert pixels.shape == (8, 8, channels)
    assert pixels[0, 0].tolist() == [round(255 * value) for value in mean]


def hub_folder(folder: Path, **stated: object) -> Path:
    """Write a folder in timm's hub layout whose random network predicts each of its three classes for some images."""
    torch.manual_seed(0)
    network: Any = build_student("cifar_resnet8", SPEC).network.module
    network.eval()
    with torch.no_grad():
        seen = [torch.from_numpy(np.array(noise(32, 32, seed))).permute(2, 0, 1) / 255 for seed in range(40)]
        network.linear.bias -= network((torch.stack(seen) - 0.4) / 0.2).mean(0)
    folder.mkdir()
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / "model.safetensors"
    )
    given = {"input_size": list(SPEC.size), "mean": list(SPEC.mean), "std": list(SPEC.std), "num_classes": 3, **stated}
    config = {"architecture": "cifar_resnet8", "num_classes": 3, "pretrained_cfg": given}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def sorted_by_timm(folder: Path, root: Path) -> Path:
    """Write images into the folder of the class that timm predicts with the network and the transform of `folder`."""
    network: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform: Any = create_transform(**resolve_model_data_config(network), is_training=False)
    for name in "012":
        (root / name).mkdir(parents=True)
    for seed in range(60):
        image = noise(*((32, 32), (50, 33), (30, 61))[seed % 3], seed)
        with torch.no_grad():
            label = int(network(transform(image)[None]).argmax())
        image.save(root / str(label) / f"{seed}.png")
    assert all(any((root / name).iterdir()) for name in "012")
    return root


@pytest.mark.parametrize(
    ("stated", "used"),
    [
        ({"crop_pct": 0.8, "interpolation": "bicubic", "crop_mode": "center"}, BICUBIC),
        ({"crop_pct": 0.9, "interpolation": "lanczos", "crop_mode": "squash"}, Preprocessing(0.9, "lanczos", "squash")),
        ({"crop_pct": 1.0, "interpolation": "nearest", "crop_mode": "border"}, Preprocessing(1, "nearest", "border")),
        ({"crop_pct": 0.7}, Preprocessing(0.7, "bicubic", "center")),
        ({"interpolation": "bilinear"}, Preprocessing(0.875, "bilinear", "center")),
    ],
)
def test_the_accuracy_of_a_hub_folder_is_that_of_timm(tmp_path, stated, used):
    folder = hub_folder(tmp_path / "hub", **stated)
    data = sorted_by_timm(folder, tmp_path / "data")
    result = dfkd("evaluate", folder, "--data", data, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["accuracy"] == 1.0
    assert found["preprocessing"] == asdict(used)


def test_flags_replace_what_a_file_states(tmp_path):
    folder = hub_folder(tmp_path / "hub", crop_pct=0.8, interpolation="bicubic", crop_mode="squash")
    options = LoadOptions(crop_pct=0.5, crop_mode="border")
    loaded = load_classifier(str(folder), options)
    assert loaded.spec.preprocessing == Preprocessing(0.5, "bicubic", "border")
    found = loaded.origin.found
    assert [found[name] for name in ("crop_pct", "interpolation", "crop_mode")] == [
        "--crop-pct",
        "config.json",
        "--crop-mode",
    ]
    assert options.as_words() == ("--crop-pct", "0.5", "--crop-mode", "border")


def test_a_file_that_states_nothing_has_the_default(tmp_path):
    assert load_classifier(str(hub_folder(tmp_path / "hub"))).spec.preprocessing == Preprocessing()
    words = ["inspect", tmp_path / "hub", "--crop-pct", 0.9]
    shown = " ".join(dfkd(*words).stdout.split())
    assert "crop_pct 0.9 (--crop-pct) interpolation bilinear (default) crop_mode center (default)" in shown
    assert json.loads(dfkd(*words, "--json").stdout)["preprocessing"] == asdict(Preprocessing(0.9))


@pytest.mark.parametrize(
    "stated",
    [{"crop_pct": 1.5}, {"crop_pct": "0.8"}, {"interpolation": "cubic"}, {"crop_mode": ["center"]}],
)
def test_a_file_that_states_nonsense_is_refused(tmp_path, stated):
    (name,) = stated
    with pytest.raises(TeacherError, match=rf"config\.json says {name} is"):
        load_classifier(str(hub_folder(tmp_path / "hub", **stated)))


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        ("--crop-pct", {"crop_pct": 0.0}),
        ("--crop-pct", {"crop_pct": 1.1}),
        ("--interpolation", {"interpolation": "cubic"}),
        ("--crop-mode", {"crop_mode": "middle"}),
    ],
)
def test_flags_outside_their_range_are_refused(flag, options):
    with pytest.raises(UsageError, match=f"{flag} is"):
        LoadOptions(**options)


def test_a_checkpoint_of_timms_script_states_it(tmp_path):
    network: Any = build_student("cifar_resnet8", SPEC).network.module
    args = argparse.Namespace(model="cifar_resnet8", num_classes=3, mean=None, std=None, img_size=None, input_size=None)
    for given, expected in (
        ({"crop_pct": 0.9, "interpolation": "", "crop_mode": "squash"}, Preprocessing(0.9, "bilinear", "squash")),
        ({"crop_pct": None, "interpolation": "bicubic", "crop_mode": None}, Preprocessing(1.0, "bicubic", "center")),
    ):
        vars(args).update(given)
        torch.save(
            {"arch": "cifar_resnet8", "state_dict": network.state_dict(), "args": args}, tmp_path / "last.pth.tar"
        )
        assert load_classifier(str(tmp_path / "last.pth.tar")).spec.preprocessing == expected


def test_a_network_of_timm_has_that_of_its_configuration():
    loaded = load_classifier("timm:test_resnet", LoadOptions(pretrained=False))
    known: Any = timm.get_pretrained_cfg("test_resnet")
    assert asdict(loaded.spec.preprocessing) == {
        name: getattr(known, name) for name in ("crop_pct", "interpolation", "crop_mode")
    }
    assert loaded.origin.found["crop_pct"].startswith("timm's configuration")


def test_a_student_keeps_it_for_dfkd_and_timm(tmp_path):
    save_student(build_student("cifar_resnet8", replace(SPEC, preprocessing=BICUBIC)), tmp_path, None, "hash", "ssd")
    loaded = load_classifier(str(tmp_path))
    assert loaded.spec.preprocessing == BICUBIC
    job = ExportJob("student", LoadOptions(), "torchscript", None, False, dynamic_batch=True, with_preprocessing=False)
    assert asdict(BICUBIC).items() <= facts(loaded, job).items()
    of_timm = resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path}", pretrained=True))
    assert asdict(BICUBIC).items() <= of_timm.items()


def test_an_exported_file_states_it(tmp_path):
    save_student(build_student("cifar_resnet8", replace(SPEC, preprocessing=BICUBIC)), tmp_path, None, "hash", "ssd")
    result = dfkd("export", tmp_path, "--to", "torchscript", "--out", tmp_path / "x.pt", "--crop-mode", "squash")
    assert result.exit_code == 0, result.stderr
    assert load_classifier(str(tmp_path / "x.pt")).spec.preprocessing == replace(BICUBIC, crop_mode="squash")


def test_two_networks_with_one_size_get_images_of_their_own_preprocessing(tmp_path):
    whole = hub_folder(tmp_path / "whole", crop_pct=0.5, interpolation="bilinear", crop_mode="center")
    data = sorted_by_timm(whole, tmp_path / "data")
    other = hub_folder(tmp_path / "other", crop_pct=1.0, interpolation="bilinear", crop_mode="center")
    measured = json.loads(dfkd("evaluate", other, "--data", data, "--teacher", whole, "--json").stdout)
    assert measured["teacher_accuracy"] == 1.0
    assert measured["agreement"] == measured["accuracy"] < 1.0
    agreed = json.loads(dfkd("evaluate", other, "--images", data, "--teacher", whole, "--json").stdout)
    assert agreed["agreement"] == measured["agreement"]


def test_a_run_reports_it_and_gives_it_to_the_student(tmp_path):
    torch.manual_seed(0)
    teacher: Any = build_student("cifar_resnet8", InputSpec((1, 8, 8), (0.4,), (0.3,), 3)).network.module
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    flags = [
        *LOOK,
        "--arch",
        "cifar_resnet8",
        "--student",
        "cifar_resnet8",
        "--crop-pct",
        0.9,
        "--interpolation",
        "bicubic",
    ]
    result = dfkd("compress", tmp_path / "teacher.pt", *flags, *TINY_RUN, "--out", tmp_path / "out", "--quiet")
    assert result.exit_code == 0, result.stderr
    expected = asdict(Preprocessing(0.9, "bicubic", "center"))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["preprocessing"] == expected
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert expected.items() <= config["pretrained_cfg"].items()
    assert "crop_pct 0.9, bicubic, center" in (tmp_path / "out" / "report.md").read_text()
