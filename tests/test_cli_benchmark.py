"""`dfkd benchmark` prints figures that can be checked."""

import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from grey_levels import ARCH, CLASSES, FLAGS, SIZE, grey_weights, level, write_classes
from loading_helpers import FixedBatch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

import dfkd_cli.cli
import dfkd_cli.evaluation.benchmark
from dfkd_cli.loading import load_classifier
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.networks.cost import activation_bytes, count_macs
from dfkd_cli.students.student import build_student, save_student

SPEC = InputSpec((1, 16, 16), (0.3,), (0.2,), 6)
QUICK = ["--seconds", "0", "--batch-size", "4", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Files of a student, a state dict and an exported program."""
    root = tmp_path_factory.mktemp("benchmark")
    (root / "out").mkdir()
    torch.manual_seed(0)
    save_student(build_student("cifar_resnet8", SPEC), root / "out", None, "hash", "ssd")
    teacher: Any = build_student("cifar_resnet20", SPEC).network
    torch.save(teacher.module.state_dict(), root / "teacher.pt")
    program = torch.export.export(nn.Sequential(nn.Flatten(), nn.Linear(256, 6)).eval(), (torch.rand(2, 1, 16, 16),))
    torch.export.save(program, root / "linear.pt2")
    return root


def dfkd(*arguments: object) -> Result:
    return CliRunner().invoke(dfkd_cli.cli.app, list(map(str, arguments)))


def measured(*arguments: object) -> list[dict[str, Any]]:
    result = dfkd("benchmark", *arguments, *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["device"], document["threads"]) == ("cpu", 1)
    return document["networks"]


def test_teacher_and_student_are_compared(files):
    teacher, student = measured(
        files / "teacher.pt", files / "out", "--arch", "cifar_resnet20", "--input-size", "1x16x16"
    )
    assert (teacher["arch"], student["arch"]) == ("cifar_resnet20", "cifar_resnet8")
    assert student["parameters"] == load_classifier(str(files / "out")).parameter_count()
    assert student["file_bytes"] == (files / "out" / "student.safetensors").stat().st_size
    assert student["macs"] < teacher["macs"]
    for network in (teacher, student):
        assert 0 < network["latency_ms"] <= network["latency_p95_ms"]
        assert network["images_per_s"] > 0
        assert network["batch_size"] == 4
        assert network["memory_bytes"] > 4 * network["parameters"]


def test_arch_is_given_once_or_for_each_network_that_needs_it(files):
    flags = ["--arch", "cifar_resnet20", "--arch", "lenet5", "--input-size", "1x16x16"]
    result = dfkd("benchmark", files / "teacher.pt", *QUICK, *flags)
    assert result.exit_code == 2
    assert "--arch appears 2 times" in result.stderr
    names = [files / "teacher.pt", files / "out", files / "teacher.pt"]
    result = dfkd("benchmark", *names, *QUICK, *flags)
    assert result.exit_code == 3
    assert "does not fit --arch lenet5" in result.stderr


def test_an_onnx_file_runs_in_onnxruntime_with_its_own_batch_size(files, tmp_path):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="needs the extra 'export'")
    path = tmp_path / "student.onnx"
    assert dfkd("export", files / "out", "--to", "onnx", "--out", path).exit_code == 0
    (onnx,) = measured(path)
    assert (onnx["kind"], onnx["batch_size"], onnx["macs"]) == ("ONNX", 1, None)
    assert onnx["file_bytes"] == path.stat().st_size
    # BatchNorm may be folded into the convolutions.
    assert 0.95 < onnx["parameters"] / load_classifier(str(files / "out")).parameter_count() <= 1.0
    path = path.rename(tmp_path / "no extension")
    assert measured(path)[0]["kind"] == "ONNX"
    path.write_bytes(path.read_bytes()[:2000])
    result = dfkd("benchmark", path, *QUICK)
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "student.onnx").write_bytes(bytes.fromhex("080a1207") + b"pytorch")
    result = dfkd("benchmark", tmp_path / "student.onnx", *QUICK)
    assert result.exit_code == 2
    assert "pip install 'dfkd[export]'" in result.stderr


def test_the_table_holds_every_figure(files):
    result = dfkd("benchmark", files / "out", *QUICK)
    assert result.exit_code == 0, result.stderr
    for phrase in ("parameters", "MACs", "latency", "95 %", "throughput", "memory", "on cpu, 1 thread"):
        assert phrase in result.stdout


@pytest.mark.parametrize("columns", ["12", "300"])
def test_names_are_not_interpreted_and_figures_are_not_cut(files, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    names = ["net[v1].pt2", "net:x:.pt2", os.fsdecode(b"net\xff.pt2"), f"{'long' * 9}.pt2"]
    paths = [shutil.copy(files / "linear.pt2", tmp_path / name) for name in names]
    result = dfkd("benchmark", *paths, *QUICK, "--input-size", "1x16x16")
    assert result.exit_code == 0, result.stderr
    for name in (*names[:2], r"net\udcff.pt2"):
        assert f" {name} " in result.stdout
    (row,) = [line for line in result.stdout.splitlines() if "parameters" in line]
    assert row.split() == ["parameters", *4 * ["1,542"]]


def test_macs_of_a_network_with_a_fixed_batch_are_those_of_one_image(tmp_path):
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(FixedBatch().eval(), torch.rand(8, 1, 16, 16)), tmp_path / "fixed.pt")
    (network,) = measured(tmp_path / "fixed.pt", "--input-size", "1x16x16")
    assert network["macs"] == 256 * 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.pt"], 2, "does not exist"),
        (["{files}/linear.pt2", "--batch-size", "0"], 2, "batch-size"),
        (["{files}/teacher.pt"], 2, "--arch"),
        ([], 2, "NETWORK"),
    ],
)
def test_mistake_is_one_line_and_its_exit_code(files, arguments, code, message):
    result = dfkd("benchmark", *[argument.format(files=files) for argument in arguments])
    assert result.exit_code == code
    assert result.stdout == ""
    assert message in result.stderr


@pytest.mark.parametrize(
    "option",
    [
        ["--classes", "names.txt"],
        ["--class-order", "text"],
        ["--skip-unreadable"],
        ["--value-range", "0:4095"],
        ["--exif-orientation", "ignore"],
        ["--crop-pct", "0.9"],
        ["--interpolation", "bicubic"],
        ["--crop-mode", "squash"],
        ["--plot", "speed.png"],
    ],
    ids=lambda option: option[0],
)
def test_an_option_about_labelled_images_needs_them(files, option):
    result = dfkd("benchmark", files / "out", *QUICK, *option)
    assert result.exit_code == 2
    assert result.stderr == f"error: {option[0]} needs --data, the labelled images that accuracy is measured on\n"


class TestAccuracy:
    """The accuracy is that of `dfkd evaluate` with the same options."""

    @pytest.fixture(scope="class")
    @classmethod
    def networks(cls, tmp_path_factory) -> list[Path]:
        """A state dict and a student that read the class from the grey level in the centre of an image."""
        root = tmp_path_factory.mktemp("grey")
        torch.save(grey_weights(), root / "grey.pt")
        student = build_student(ARCH, InputSpec((1, SIZE, SIZE), (0.0,), (1.0,), CLASSES))
        student.network.get_submodule("module").load_state_dict(grey_weights())
        (root / "student").mkdir()
        save_student(student.eval(), root / "student", None, "hash", "ssd")
        return [root / "grey.pt", root / "student"]

    @staticmethod
    def accuracies(networks: list[Path], data: Path, *more: object) -> list[float]:
        """Return the accuracies after a comparison with those of `dfkd evaluate`."""
        found = [network["accuracy"] for network in measured(*networks, *FLAGS, "--data", data, *more)]
        for network, accuracy in zip(networks, found, strict=True):
            result = dfkd("evaluate", network, *FLAGS, "--data", data, *more, "--json")
            assert json.loads(result.stdout)["accuracy"] == accuracy
        return found

    def test_the_order_of_the_classes_is_asked_for_and_taken(self, networks, tmp_path):
        names = [str(number) for number in range(CLASSES)]
        data = write_classes(tmp_path / "data", names)
        refused = dfkd("benchmark", *networks, *QUICK, *FLAGS, "--data", data)
        assert (refused.exit_code, "--class-order natural" in refused.stderr) == (2, True)
        assert self.accuracies(networks, data, "--class-order", "natural") == [1.0, 1.0]
        assert max(self.accuracies(networks, data, "--class-order", "text")) < 0.7
        (tmp_path / "names.txt").write_text("\n".join(names))
        assert self.accuracies(networks, data, "--classes", tmp_path / "names.txt") == [1.0, 1.0]

    def test_the_value_range_is_asked_for_and_taken(self, networks, tmp_path):
        for number in range(CLASSES):
            (tmp_path / f"{number:02}").mkdir()
            white_at_4095 = np.full((SIZE, SIZE), round(level(number) * 4095 / 255), np.uint16)
            Image.fromarray(white_at_4095).save(tmp_path / f"{number:02}" / "1.png")
        refused = dfkd("benchmark", *networks, *QUICK, *FLAGS, "--data", tmp_path)
        assert (refused.exit_code, "--value-range" in refused.stderr) == (2, True)
        assert self.accuracies(networks, tmp_path, "--value-range", "0:4095") == [1.0, 1.0]

    def test_the_crop_is_that_of_the_option_for_students_too(self, networks, tmp_path):
        for number in range(CLASSES):
            (tmp_path / f"{number:02}").mkdir()
            image = Image.new("L", (2 * SIZE, 2 * SIZE), 255)
            image.paste(level(number), (13, 13, 19, 19))  # the pixels that the network reads of the image's centre
            image.save(tmp_path / f"{number:02}" / "1.png")
        assert max(self.accuracies(networks, tmp_path)) < 0.2
        assert self.accuracies(networks, tmp_path, "--crop-pct", "0.5") == [1.0, 1.0]

    def test_unreadable_files_are_left_out_and_noted_once_for_all_networks(self, networks, tmp_path):
        data = write_classes(tmp_path, [f"{number:02}" for number in range(CLASSES)])
        (data / "00" / "broken.png").write_bytes(b"no image")
        arguments = ["benchmark", *networks, *QUICK, *FLAGS, "--data", data]
        assert dfkd(*arguments).exit_code == 2
        result = dfkd(*arguments, "--skip-unreadable")
        assert result.exit_code == 0, result.stderr
        assert result.stderr.count("1 unreadable image file was skipped") == 1


def test_networks_take_turns(files, monkeypatch):
    turns = []
    take_turn = dfkd_cli.evaluation.benchmark.take_turn
    monkeypatch.setattr(
        dfkd_cli.evaluation.benchmark,
        "take_turn",
        lambda *turn: (turns.append(turn[0].about["source"]), take_turn(*turn)),
    )
    measured(files / "out", files / "linear.pt2")
    counted = turns[2 * dfkd_cli.evaluation.benchmark.UNTIMED_TURNS :]
    assert len(counted) == 2 * dfkd_cli.evaluation.benchmark.MIN_TURNS
    assert len(set(counted[::2])) == len(set(counted[1::2])) == 1


def test_latency_figures_are_quantiles_of_the_measured_seconds():
    about = {"source": "", "kind": "", "arch": None, "input_size": (1, 2, 2), "parameters": 1, "macs": 1}
    about |= {"input_size_found": ""}
    about |= {"file_bytes": None, "memory_bytes": None}
    candidate = dfkd_cli.evaluation.benchmark.Candidate(about, nn.Identity(), torch.rand(8, 1, 2, 2))
    candidate.singles = [i / 1000 for i in range(100, -1, -1)]
    candidate.batches = [4.0, 1.0, 2.0]
    speed = candidate.speed()
    assert speed.latency_ms == pytest.approx(50)
    assert speed.latency_p95_ms == pytest.approx(95)
    assert speed.images_per_s == 4


def test_macs_follow_their_definition():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    assert count_macs(network, torch.rand(1, 3, 8, 8)) == 8 * 4 * 4 * 3 * 3 * 3 + 8 * 16 * 5


def test_memory_is_the_peak_of_the_tensors_alive_at_once():
    def forward(images):
        first = images * 2
        second = first + 1
        del first
        view = second.view(-1)
        view.add_(1)
        return view * 3

    images = torch.rand(1, 1000)
    assert activation_bytes(forward, images) == 2 * images.nbytes
    assert activation_bytes(lambda images: images.view(-1), images) == 0
