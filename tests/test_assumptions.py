"""What a file does not state of its input is assumed from its weights, and the user is told so."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from briefly_trained import SIDE, smooth_images, trained, unit_network
from command_line import TINY_RUN, dfkd
from loading_helpers import FixedBatch, create, export, load, script
from torch import Tensor, nn

from dfkd_cli.errors import UsageError
from dfkd_cli.loading.assumptions import FROM_BATCHNORM, FROM_STRIDES, ONLY_SIZE

SAVERS = {"teacher.pt": script, "teacher.pt2": export}
RGB = {"mean": (0.45,), "std": (0.25,)}


class FixedHead(nn.Module):
    """The briefly trained network with a head for images of one size."""

    def __init__(self, module: nn.Sequential):
        super().__init__()
        self.stem = module[:3]
        self.head = nn.Linear(16 * SIDE * SIDE, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images).flatten(1))


@pytest.fixture(scope="module")
def module() -> FixedHead:
    torch.manual_seed(0)
    return FixedHead(copy.deepcopy(unit_network())).eval()


@pytest.fixture(scope="module", params=SAVERS)
def teacher(request, module, tmp_path_factory) -> Path:
    """A file that states nothing, of a network that was trained on images in [0, 1]."""
    return SAVERS[request.param](module, tmp_path_factory.mktemp("teacher") / request.param, (3, SIDE, SIDE))


def test_inspect_shows_the_assumptions_and_the_estimate(teacher):
    result = dfkd("inspect", teacher, "--json")
    assert result.exit_code == 0, result.stderr
    seen = json.loads(result.stdout)
    assert (seen["input_size"], seen["mean"], seen["std"]) == ([3, SIDE, SIDE], [0.0] * 3, [1.0] * 3)
    assert seen["found"]["input_size"] in (ONLY_SIZE, "the exported graph's input")
    assert seen["found"]["mean"] == seen["found"]["std"] == FROM_BATCHNORM
    (note,) = [note for note in seen["notes"] if note.startswith("Mean and std are assumed")]
    assert "0,0,0 and 1,1,1" in note
    assert "as images in [0, 1] give; check with --mean and --std" in note
    statistics = seen["input_statistics"]
    assert (statistics["trusted"], statistics["convention"]) == (True, "unit range")
    assert statistics["mean"] == pytest.approx([0.4, 0.45, 0.5], abs=0.03)
    assert statistics["std"] == pytest.approx(0.25, rel=0.12)
    assert "inputs of about mean" in dfkd("inspect", teacher).stdout


def test_compress_needs_no_flags_and_writes_what_it_assumed(teacher, tmp_path):
    result = dfkd("compress", teacher, "--out", tmp_path / "out", "--json", *TINY_RUN, "--set", "train.steps=2")
    assert result.exit_code == 0, result.stderr
    assert "Mean and std are assumed" in " ".join(result.stderr.split())
    report = json.loads(result.stdout)
    assert report["teacher"]["assumed"] == ["mean", "std"]
    assert any(note.startswith("Mean and std are assumed") for note in report["notes"])
    student = tmp_path / "out" / "student.safetensors"
    with safetensors.safe_open(student, framework="pt") as file:
        assert json.loads(file.metadata()["dfkd"])["assumed"] == ["mean", "std"]
    loaded = load(student, strict=True)  # the values stand in the file
    assert loaded.spec.assumed == ("mean", "std")
    assert loaded.origin.found["mean"] == "the dfkd student's metadata, which assumes it"
    assert loaded.origin.found["input_size"] == "the dfkd student's metadata"


@pytest.mark.parametrize("command", ["compress", "plan", "inspect", "export"])
def test_strict_refuses_with_the_flags_to_give(teacher, tmp_path, command):
    wanted = ("--to", "pt2", "--out", tmp_path / "new.pt2") if command == "export" else ()
    result = dfkd(command, teacher, "--strict", *wanted)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.endswith("give --mean 0,0,0 --std 1,1,1, or the true values")
    assert FROM_BATCHNORM in line


def test_strict_accepts_the_same_values_as_flags(teacher):
    assert dfkd("inspect", teacher, "--strict", "--mean", "0,0,0", "--std", "1,1,1").exit_code == 0


def test_the_environment_can_be_strict(teacher, monkeypatch):
    monkeypatch.setenv("DFKD_COMPRESS_STRICT", "1")
    result = dfkd("compress", teacher)
    assert result.exit_code == 2
    assert "--strict refuses assumptions" in result.stderr
    assert dfkd("inspect", teacher).exit_code == 0  # the variable of another command


def test_flags_that_contradict_the_weights_are_a_warning(teacher):
    wrong = json.loads(dfkd("inspect", teacher, "--mean", "0.45", "--std", "0.004", "--json").stdout)
    (note,) = [note for note in wrong["notes"] if note.startswith("Check mean and std from --mean and --std")]
    assert "0.004" in note
    assert "trained on inputs of about mean 0.45" in note
    right = json.loads(dfkd("inspect", teacher, "--mean", "0", "--std", "1", "--json").stdout)
    assert not any(note.startswith(("Check mean", "Mean and std")) for note in right["notes"])


def test_metadata_that_contradicts_the_weights_is_a_warning(module, tmp_path):
    facts = {"config.json": json.dumps({"mean": [0.0], "std": [0.004]})}
    notes = load(script(module, tmp_path / "t.pt", (3, SIDE, SIDE), extra=facts)).origin.notes
    assert any(note.startswith("Check mean and std from config.json in the archive:") for note in notes)


def test_one_of_mean_and_std_is_not_completed(teacher):
    result = dfkd("inspect", teacher, "--mean", "0.45")
    assert result.exit_code == 2
    assert result.stderr.strip().endswith("add --std S1,S2,...")


def test_a_network_without_batchnorm_needs_mean_and_std(tmp_path):
    plain = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 26 * 26, 3)).eval()
    result = dfkd("compress", script(plain, tmp_path / "t.pt", (1, 28, 28)), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "input_size (1, 28, 28) from trial forwards" in result.stderr
    assert "no BatchNorm after a first convolution shows mean and std; add --mean M1,M2,... --std" in result.stderr
    assert not (tmp_path / "out").exists()


def test_inputs_of_no_usual_normalisation_are_shown(tmp_path):
    module = trained(smooth_images(3, 0.0, 1.0))
    with torch.no_grad():
        module[0].get_parameter("weight").div_(0.004)
    with pytest.raises(UsageError, match=r"and std 0.00\d+, which no usual normalisation gives; add --mean"):
        load(script(module, tmp_path / "t.pt", (3, SIDE, SIDE)))


def test_statistics_that_do_not_fit_are_not_used(tmp_path):
    module = copy.deepcopy(unit_network())
    module[1].get_buffer("running_mean").normal_(std=3.0)
    with pytest.raises(UsageError, match=r"does not show them reliably: .*; add --mean M1"):
        load(script(module, tmp_path / "t.pt", (3, SIDE, SIDE)))


def test_a_state_dict_is_completed_like_an_archive(tmp_path):
    torch.manual_seed(0)
    module = create("cifar_resnet8", num_classes=5)
    images = smooth_images(3, 0.45, 0.25)
    with torch.no_grad():
        for _ in range(100):
            module(images[:32])
    torch.save(module.eval().state_dict(), tmp_path / "t.pt")
    classifier = load(tmp_path / "t.pt", arch="cifar_resnet8")
    assert classifier.spec.assumed == ("input_size", "mean", "std")
    assert (classifier.spec.size, classifier.spec.std) == ((3, 32, 32), (1.0,) * 3)


def strided(channels: int, strides: int, padding: int = 1) -> nn.Sequential:
    """A network for images of any size, with a total stride of 2^strides."""
    width = [channels, *[8] * strides]
    layers = [nn.Conv2d(a, 8, 3, 2, padding) for a in width[:-1]]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)).eval()


@pytest.mark.parametrize(
    ("channels", "strides", "side"), [(3, 2, 32), (3, 3, 32), (3, 4, 64), (3, 5, 224), (1, 2, 28), (1, 3, 32)]
)
def test_the_usual_size_for_the_strides_is_assumed(tmp_path, channels, strides, side):
    classifier = load(script(strided(channels, strides), tmp_path / "t.pt", (channels, 64, 64)), **RGB)
    assert classifier.spec.size == (channels, side, side)
    assert classifier.spec.assumed == ("input_size",)
    assert classifier.origin.found["input_size"] == FROM_STRIDES
    (note,) = classifier.origin.notes
    assert f"assumed to be {channels}x{side}x{side}" in note
    assert f"total stride of {2**strides}" in note


def test_convolutions_without_padding_do_not_count_as_strides(tmp_path):
    classifier = load(script(strided(3, 3, padding=0), tmp_path / "t.pt", (3, 64, 64)), **RGB)
    assert classifier.spec.size == (3, 32, 32)


def linear(length: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(length, 6)).eval()


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (linear(784), (1, 28, 28)),
        (linear(3072), (3, 32, 32)),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 46 * 46, 6)).eval(), (2, 48, 48)),
        (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Flatten(), nn.Linear(6 * 62 * 62, 6)).eval(), (3, 64, 64)),
        (FixedBatch().eval(), (1, 16, 16)),
    ],
    ids=["grey vectors", "colour vectors", "two channels", "grouped convolution", "one batch size"],
)
def test_the_only_size_that_fits_is_taken(tmp_path, module, size):
    classifier = load(script(module, tmp_path / "t.pt", size, batch=8), strict=True, **RGB)
    assert classifier.spec.size == size
    assert classifier.origin.found["input_size"] == ONLY_SIZE
    assert classifier.spec.assumed == ()


def test_benchmark_notes_an_assumed_size_and_strict_refuses_it(tmp_path):
    path = script(strided(3, 2), tmp_path / "t.pt", (3, 32, 32))
    quick = ("--seconds", "0", "--batch-size", "4", "--threads", "1")
    result = dfkd("benchmark", path, *quick)
    assert result.exit_code == 0, result.stderr
    assert f"the input size 3x32x32 is {FROM_STRIDES}; check with --input-size" in result.stderr
    assert "3x32x32" in result.stdout
    assert dfkd("benchmark", path, *quick, "--input-size", "3x48x48").stderr == ""
    refused = dfkd("benchmark", path, *quick, "--strict")
    assert (refused.exit_code, "give --input-size 3x32x32, or the true values" in refused.stderr) == (2, True)


def test_strict_names_the_size_and_what_is_missing_beside_it(tmp_path):
    path = script(strided(3, 2), tmp_path / "t.pt", (3, 32, 32))
    with pytest.raises(UsageError, match=r"give --input-size 3x32x32 --mean M1,M2,... --std S1,S2,..., or the true"):
        load(path, strict=True)


def test_no_size_that_fits_is_said(tmp_path):
    path = script(linear(3 * 20 * 20), tmp_path / "t.pt", (3, 20, 20))
    with pytest.raises(
        UsageError, match=r"no square image of 8 to 384 pixels with 3 or 1 channels \(the .*\); add --input-size"
    ):
        load(path, **RGB)


def test_a_program_of_any_size_without_example_images_is_tried_too(tmp_path):
    dim = torch.export.Dim.DYNAMIC
    shapes = ({0: dim, 2: dim, 3: dim},)
    program: Any = torch.export.export(strided(3, 4), (torch.rand(4, 3, 96, 96),), dynamic_shapes=shapes)
    program._example_inputs = None  # as of a program whose example images were not saved
    torch.export.save(program, tmp_path / "t.pt2")
    classifier = load(tmp_path / "t.pt2", **RGB)
    assert classifier.spec.size == (3, 64, 64)
    assert classifier.origin.found["input_size"] == FROM_STRIDES
