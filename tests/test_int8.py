"""`dfkd export --int8` and what reads its files."""

import json
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archive_networks import BATCH, make_network
from command_line import dfkd
from int8_files import LOOK, SPEC, calibrate_beside, save_fragile, save_linear
from PIL import Image
from torch import nn

from dfkd_cli.evaluation.calibration import CALIBRATION_FILE, read_calibration
from dfkd_cli.export.int8 import with_contrast
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.loading.onnx import load_onnx
from dfkd_cli.students.student import build_student, save_student

onnx: Any = pytest.importorskip("onnx", reason="needs the extra 'export'")
pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
ANY = ("--min-agreement", "0")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a student, its calibration images, and its file of 8 bits as the command writes it."""
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    network = build_student("cifar_resnet8", SPEC)
    with torch.no_grad():
        network.train()(torch.rand(32, *SPEC.size))
        (head,) = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        head.weight.mul_(10.0)  # so that the network is certain of some images
    save_student(network, folder, None, "hash", "ssd")
    calibrate_beside(folder, load_classifier(str(folder)))
    (folder / "report").write_text(exported(folder, "--dynamic-batch", "--with-preprocessing", *ANY, text=True))
    return folder


@pytest.fixture(scope="module")
def fragile(tmp_path_factory) -> Path:
    """An ONNX file of another program, with calibration images beside it."""
    folder = tmp_path_factory.mktemp("fragile")
    calibrate_beside(folder)
    return save_fragile(folder / "fragile.onnx")


def exported(source: Path, *options: object, text: bool = False) -> Any:
    result = dfkd("export", source, "--to", "onnx", "--int8", *options, "--json")
    assert result.exit_code == 0, result.stderr
    return result.stdout if text else json.loads(result.stdout)


def refused(*arguments: object, code: int) -> str:
    """Return the one line on stderr of a command that ends with this exit code."""
    result = dfkd(*arguments)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert (result.exit_code, len(lines), result.stdout) == (code, 1, ""), result.output
    return lines[0]


def test_weights_have_8_bits_per_channel_and_the_file_describes_itself(made):
    report, path = json.loads((made / "report").read_text()), made / "student.int8.onnx"
    assert report["path"] == str(path)
    assert report["file_bytes"] == path.stat().st_size < 0.5 * report["int8"]["fp32_bytes"]
    model = onnx.load(path)
    held = {weight.name: weight for weight in model.graph.initializer}
    scales = [
        len(onnx.numpy_helper.to_array(held[node.input[1]]))
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and held.get(node.input[0]) is not None and held[node.input[1]].dims
        if held[node.input[0]].data_type == onnx.TensorProto.INT8
    ]
    assert len(scales) == report["int8"]["layers"]
    assert Counter(scales)[64] == 2  # the convolutions of the last stage
    assert {entry.domain for entry in model.opset_import} == {""}
    original, loaded = load_classifier(str(made)), load_onnx(str(path), LoadOptions())
    assert loaded.parameter_count() == original.parameter_count()
    assert loaded.spec.mean == (0.0,)


def test_weights_use_7_bits_so_that_no_processor_saturates(made, tmp_path):
    assert json.loads((made / "report").read_text())["int8"]["weight_bits"] == 7
    assert largest_weight(made / "student.int8.onnx") == 64
    report = exported(made, "--int8-weights", "8", "--out", tmp_path / "8.onnx", *ANY)
    assert report["int8"]["weight_bits"] == 8
    assert largest_weight(tmp_path / "8.onnx") == 127


def largest_weight(path: Path) -> int:
    held = [onnx.numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer]
    return max(int(abs(value.astype(int)).max()) for value in held if value.dtype == np.int8 and value.size > 1)


def test_the_report_holds_the_agreement_on_the_half_that_gave_no_ranges(made):
    int8 = json.loads((made / "report").read_text())["int8"]
    assert (int8["calibrated_on"], int8["all_images"], int8["in_fp32"], int8["ranges"]) == (100, 100, [], "minmax")
    original = load_classifier(str(made))
    loaded = load_onnx(str(made / "student.int8.onnx"), LoadOptions())
    images = read_calibration(made / CALIBRATION_FILE).images[1::2].float() / 255.0
    with torch.no_grad():
        logits = original(images)
        same = (logits.argmax(1) == loaded(images).argmax(1)).float()
    certain = logits.softmax(1).amax(1) >= 0.6
    assert 10 <= int(certain.sum()) < 100
    assert int8["compared_on"] == int(certain.sum())
    assert int8["agreement"] == pytest.approx(float(same[certain].mean()))
    assert int8["agreement_on_all"] == pytest.approx(float(same.mean()))
    assert int8["agreement"] > 0.8


def test_evaluate_and_its_gates_take_the_file(made, tmp_path):
    path = made / "student.int8.onnx"
    result = dfkd("evaluate", path, "--min-agreement", "0.8", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["images"], facts["file_bytes"]) == (200, path.stat().st_size)
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        Image.effect_noise((8, 8), 60).save(tmp_path / str(number) / "0.png")
    gate = ("--data", tmp_path, "--teacher", made, "--min-accuracy", "1", "--json")
    result = dfkd("evaluate", path, *gate)
    assert result.exit_code == 5, result.stderr
    assert json.loads(result.stdout)["images"] == 3


def test_benchmark_compares_the_file_in_one_table_and_a_plot(made, tmp_path):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        Image.effect_noise((8, 8), 60).save(tmp_path / str(number) / "0.png")
    quick = ("--seconds", "0", "--batch-size", "4", "--threads", "1", "--device", "cpu", "--data", tmp_path)
    plot = tmp_path / "speed.svg"
    result = dfkd("benchmark", made, made / "student.int8.onnx", *quick, "--plot", plot, "--json")
    assert result.exit_code == 0, result.stderr
    student, int8 = json.loads(result.stdout)["networks"]
    assert (student["kind"], int8["kind"]) == ("dfkd student", "ONNX int8")
    assert 0 <= int8["accuracy"] == pytest.approx(round(int8["accuracy"] * 3) / 3)
    assert student["parameters"] == int8["parameters"]
    assert student["file_bytes"] > 2 * int8["file_bytes"]
    assert "<svg" in plot.read_text()
    assert "--data" in refused("benchmark", made, "--plot", plot, code=2)
    assert ".png" in refused("benchmark", made, *quick, "--plot", tmp_path / "speed.docx", code=2)


def test_a_missed_agreement_is_exit_code_5_with_the_figures_and_no_file(fragile):
    before = sorted(fragile.parent.iterdir())
    result = dfkd("export", fragile, *LOOK, "--to", "onnx", "--int8", "--json")
    assert result.exit_code == 5, result.stderr
    document = json.loads(result.stdout)
    assert document["int8"]["agreement"] < document["int8"]["min_agreement"] == 0.98
    assert document["path"] is None
    assert "--int8-skip auto" in document["error"]["message"]
    assert sorted(fragile.parent.iterdir()) == before


def test_the_layer_that_resists_is_named_and_left_in_fp32(fragile, tmp_path):
    out = tmp_path / "fragile.onnx"
    report = exported(fragile, *LOOK, "--int8-skip", "auto", "--min-agreement", "0.9", "--out", out)
    assert report["int8"]["in_fp32"] == ["head"]
    assert report["int8"]["agreement"] >= 0.9
    held = {weight.name: weight.data_type for weight in onnx.load(out).graph.initializer}
    assert held["head.weight"] == onnx.TensorProto.FLOAT


def test_ranges_follow_the_chosen_method(fragile, tmp_path):
    scales = {}
    for ranges in ("minmax", "entropy", "percentile"):
        out = tmp_path / ranges
        assert exported(fragile, *LOOK, "--int8-ranges", ranges, "--out", out, *ANY)["int8"]["ranges"] == ranges
        held = {weight.name: weight for weight in onnx.load(out).graph.initializer}
        scales[ranges] = float(onnx.numpy_helper.to_array(held["features_scale"]))
    assert scales["entropy"] < scales["minmax"]
    # So few activations that 0.001 % of them is less than one.
    assert scales["percentile"] == pytest.approx(scales["minmax"], rel=1e-3)


@pytest.mark.parametrize("name", ["grouped", "vgg"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
def test_a_strangers_archive_is_calibrated_on_images_made_from_it(tmp_path, name):
    """`grouped` has PReLU, grouped and dilated convolutions and no BatchNorm, `vgg` one channel and BatchNorm."""
    module, size = make_network(name)
    images, path = torch.rand(BATCH, *size), tmp_path / "odd.pt"
    if name == "grouped":
        with warnings.catch_warnings(action="ignore"):
            torch.jit.save(torch.jit.trace(module, images), path)
    else:
        program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        torch.export.save(program, path)
    look = ("--input-size", "x".join(map(str, size)), "--mean", "0.4", "--std", "0.3")
    report = exported(path, *look, "--dynamic-batch", "--budget", "0.1s", "--min-agreement", "0.5")
    assert report["int8"]["all_images"] == 500
    loaded = load_onnx(report["path"], LoadOptions())
    with torch.no_grad():
        logits = module((images - 0.4) / 0.3)
        torch.testing.assert_close(loaded(images), logits, atol=0.1 * float(logits.abs().max()), rtol=0)


@pytest.mark.parametrize("damage", ["cut", "size", "few"])
def test_a_calibration_file_that_cannot_be_used_is_one_line(fragile, tmp_path, damage):
    path = Path(shutil.copy(fragile, tmp_path / "fragile.onnx"))
    calibration = calibrate_beside(tmp_path, images=4 if damage == "few" else 40)
    if damage == "cut":
        calibration.write_bytes(calibration.read_bytes()[:200])
    if damage == "size":
        path = save_linear(tmp_path / "other.onnx", classes=2)
    line = refused("export", path, *LOOK, "--to", "onnx", "--int8", code=2 if damage == "few" else 3)
    assert ("4 calibration images" if damage == "few" else str(calibration)) in line


def test_an_onnx_file_without_calibration_images_is_one_line(fragile, tmp_path):
    path = Path(shutil.copy(fragile, tmp_path / "fragile.onnx"))
    assert CALIBRATION_FILE in refused("export", path, *LOOK, "--to", "onnx", "--int8", code=2)


@pytest.mark.parametrize(("opset", "code"), [(12, 1), (13, 0)])
def test_an_opset_that_is_too_old_is_one_line(tmp_path, opset, code):
    path = save_linear(tmp_path / "linear.onnx", opset=opset)
    calibrate_beside(tmp_path)
    command = ("export", path, *LOOK, "--to", "onnx", "--int8", *ANY)
    assert code == 0 or "opset 12" in refused(*command, code=code)
    assert dfkd(*command).exit_code == code
    assert (tmp_path / "linear.int8.onnx").exists() == (code == 0)


def test_the_missing_extra_is_named(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = refused("export", made, "--to", "onnx", "--int8", "--overwrite", code=2)
    assert "pip install 'dfkd[export]'" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "pt2", "--int8"], "--to onnx"),
        (["--to", "onnx", "--budget", "3m"], "add --int8"),
        (["--to", "onnx", "--min-agreement", "0"], "add --int8"),
        (["--to", "onnx", "--int8", "--budget", "long"], "--budget long"),
        (["--to", "onnx", "--int8"], "student.int8.onnx exists"),
    ],
)
def test_options_that_do_not_fit_are_one_line(made, options, message):
    assert message in refused("export", made, *options, code=2)


def test_copies_have_twice_the_contrast_about_the_mean_of_each_channel():
    images = torch.tensor([[[[100, 120]], [[0, 250]]]], dtype=torch.uint8)
    assert with_contrast(images).tolist() == [[[[90, 130]], [[0, 255]]]]
