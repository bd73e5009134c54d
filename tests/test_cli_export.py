"""`dfkd export` from the flags to a file that computes what the network computes."""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading_helpers import ARCH, SIZE, FixedBatch, create, script
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

import dfkd_cli.cli
from dfkd_cli.data.sample_grid import grid_of
from dfkd_cli.export import forms
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.loading.onnx import load_onnx
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.students.student import build_student, save_student

SPEC = InputSpec((1, 16, 16), (0.3,), (0.2,), 6)
SPEC_FLAGS = ["--input-size", "1x16x16", "--mean", "0.3", "--std", "0.2"]


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    """Return the folder of a student with BatchNorm statistics other than the initial ones."""
    folder = tmp_path_factory.mktemp("export") / "out"
    folder.mkdir()
    torch.manual_seed(0)
    network = build_student("cifar_resnet8", SPEC)
    with torch.no_grad():
        network.train()(torch.rand(32, *SPEC.size))
    save_student(network, folder, None, "hash", "ssd")
    return folder


@pytest.fixture(scope="module")
def onnx_file(student, tmp_path_factory) -> Callable[..., Path]:
    """Return a function that writes the student as an ONNX file with the given flags, once per set of flags."""
    needs_onnx()
    made: dict[tuple[str, ...], Path] = {}

    def onnx_file(*flags: str) -> Path:
        if flags not in made:
            path = tmp_path_factory.mktemp("onnx") / "a name without extension"
            result = dfkd("export", student, "--to", "onnx", "--out", path, *flags)
            assert result.exit_code == 0, result.stderr
            made[flags] = path
        return made[flags]

    return onnx_file


@pytest.fixture
def own(student, tmp_path) -> Path:
    """Return a copy of the student's folder to write into."""
    return shutil.copytree(student, tmp_path / "own")


def dfkd(*arguments: object) -> Result:
    return CliRunner().invoke(dfkd_cli.cli.app, list(map(str, arguments)))


def needs_onnx() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="needs the extra 'export'")


def onnx_session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("preprocessing", [True, False])
def test_an_onnx_file_is_evaluated_like_the_student_it_was_written_from(
    student, onnx_file, tmp_path, dynamic, preprocessing
):
    path = onnx_file(*["--dynamic-batch"] * dynamic, *["--with-preprocessing"] * preprocessing)
    for label in range(6):
        (tmp_path / "data" / f"{label}").mkdir(parents=True)
        pixels = np.random.default_rng(label).integers(0, 256, (16, 16)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{label}" / "image.png")
    # Flags for the teacher do not apply to a file that describes its own input.
    more = ["--teacher", student, "--mean", "0.9", "--std", "0.9", "--json", "--device", "cpu"]
    result = dfkd("evaluate", path, "--data", tmp_path / "data", *more)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["images"], found["agreement"], found["relative_accuracy"]) == (6, 1.0, 1.0)
    assert found["file_bytes"] == path.stat().st_size
    assert found["parameters"] == load_classifier(str(student)).parameter_count()


def test_a_foreign_onnx_file_needs_flags_and_cannot_be_compressed(onnx_file, tmp_path):
    original, path = onnx_file(), tmp_path / "student.onnx"
    import onnx

    model = onnx.load(original)
    del model.metadata_props[:]
    onnx.save(model, path)
    (tmp_path / "data" / "a").mkdir(parents=True)
    Image.new("L", (16, 16)).save(tmp_path / "data" / "a" / "image.png")
    result = dfkd("evaluate", path, "--data", tmp_path / "data")
    assert result.exit_code == 2
    assert "--mean" in result.stderr
    assert "--std" in result.stderr
    result = dfkd("compress", path, "--student", "cifar_resnet8", "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "is an ONNX file" in result.stderr
    path.write_bytes(path.read_bytes()[:-5000])
    result = dfkd("evaluate", path, "--data", tmp_path / "data")
    assert result.exit_code == 3
    assert "cannot be run by onnxruntime" in result.stderr


@pytest.mark.parametrize("to", ["torchscript", "pt2"])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("preprocessing", [True, False])
def test_dfkd_reads_its_own_exports_without_flags(student, tmp_path, to, dynamic, preprocessing):
    path = tmp_path / "file"
    flags = ["--dynamic-batch"] * dynamic + ["--with-preprocessing"] * preprocessing
    result = dfkd("export", student, "--to", to, "--out", path, *flags)
    assert result.exit_code == 0, result.stderr
    images = torch.rand(5, *SPEC.size)
    original, exported = load_classifier(str(student)), load_classifier(str(path))
    assert exported.spec.mean == ((0.0,) if preprocessing else SPEC.mean)
    torch.testing.assert_close(exported(images), original(images), atol=1e-5, rtol=1e-4)
    assert len(exported.norm_statistics) == len(original.norm_statistics) > 0


class TwoOutputs(nn.Module):
    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.classifier(images)
        return logits[:, :1].repeat(1, 64), logits


@pytest.mark.parametrize("told", [{"output": "scores"}, {"num_classes": SPEC.num_classes}], ids=str)
def test_onnx_with_weights_beside_it_and_several_outputs_is_evaluated(student, tmp_path, told):
    needs_onnx()
    path, images = tmp_path / "elsewhere" / "other.onnx", torch.rand(6, *SPEC.size)
    path.parent.mkdir()
    network = load_classifier(str(student)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            TwoOutputs(network), (images,), dynamo=True, output_names=["features", "scores"], verbose=False
        )
    assert program is not None
    program.save(path, external_data=True)
    assert path.with_name("other.onnx.data").exists()
    loaded = load_onnx(str(path), LoadOptions(mean=(0.0,), std=(1.0,), **told))
    torch.testing.assert_close(loaded(images), network(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("dynamic", "preprocessing"), [(True, True), (False, False)])
def test_onnxruntime_computes_what_pytorch_does(student, onnx_file, dynamic, preprocessing):
    path = onnx_file(*["--dynamic-batch"] * dynamic, *["--with-preprocessing"] * preprocessing)
    images, session = torch.rand(5, *SPEC.size), onnx_session(path)
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    assert (given.name, wanted.name) == ("images", "logits")
    assert given.shape == (["batch", 1, 16, 16] if dynamic else [1, 1, 16, 16])
    inputs = images if preprocessing else (images - 0.3) / 0.2
    pieces = inputs.split(5 if dynamic else 1)
    logits = np.concatenate([session.run(None, {"images": piece.numpy()})[0] for piece in pieces])
    expected = load_classifier(str(student))(images)
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-5, rtol=1e-4)
    facts = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["mean"] == ([0.0] if preprocessing else [0.3])
    assert facts["std"] == ([1.0] if preprocessing else [0.2])
    assert (facts["arch"], facts["num_classes"]) == ("cifar_resnet8", 6)
    assert str(Path(dfkd_cli.__file__).parent).encode() not in path.read_bytes(), "paths of this machine"


@pytest.mark.parametrize("to", ["torchscript", "pt2"])
def test_an_exported_student_is_a_teacher(student, tmp_path, to):
    path = tmp_path / "teacher"
    assert dfkd("export", student, "--to", to, "--out", path, "--dynamic-batch").exit_code == 0
    values = ["train.steps=2", "train.batch_size=8", "train.report_every=2", "options.buffer.size=8"]
    values += ["options.warmup.rounds=1", "options.generator.batch_size=8", "options.generator.width=16"]
    tiny = [part for value in values for part in ("--set", value)]
    result = dfkd("compress", path, "--student", "cifar_resnet8", "--out", tmp_path / "next", *tiny)
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "next" / "report.json").read_text())
    assert report["teacher"]["batchnorm_layers"] == len(load_classifier(str(student)).norm_statistics)


def test_flags_for_a_foreign_teacher_do_not_apply_to_an_exported_student(student, tmp_path):
    for number in range(6):
        (tmp_path / "data" / str(number)).mkdir(parents=True)
        Image.effect_noise((16, 16), 60).save(tmp_path / "data" / str(number) / "0.png")
    assert dfkd("export", student, "--to", "pt2", "--out", tmp_path / "a.pt2", "--with-preprocessing").exit_code == 0
    foreign: Any = load_classifier(str(student)).network
    torch.save(foreign.module.state_dict(), tmp_path / "teacher.pt")
    compared = ["--teacher", tmp_path / "teacher.pt", "--arch", "cifar_resnet8", *SPEC_FLAGS]
    result = dfkd("evaluate", tmp_path / "a.pt2", "--data", tmp_path / "data", *compared, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["agreement"] == 1.0


def test_the_default_file_is_beside_the_student_and_compared_on_its_samples(own):
    images = torch.rand(10, *SPEC.size)
    (own / "samples.png").write_bytes(grid_of(images, torch.arange(10)))
    result = dfkd("export", own, "--to", "torchscript", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["path"] == str(own / "student.pt")
    assert report["file_bytes"] == (own / "student.pt").stat().st_size
    assert report["input_shape"] == [1, 1, 16, 16]
    noise, synthetic = report["comparisons"]
    assert (noise["count"], synthetic["count"]) == (64, 10)
    assert "samples.png" in synthetic["images"]
    assert noise["same_top1"] == 64
    assert 0 <= noise["largest_difference"] < 1e-4 * noise["largest_output"]


def test_the_summary_describes_the_file_and_the_comparison(own):
    result = dfkd("export", own / "student.safetensors", "--to", "pt2", "--dynamic-batch", "--with-preprocessing")
    assert result.exit_code == 0, result.stderr
    for phrase in ("student.pt2", "batch x 1 x 16 x 16, images in [0, 1]", "logits of 6 classes", "smooth noise"):
        assert phrase in result.stdout
    assert "same class for 64" in result.stdout


class Wrong(nn.Module):
    """Adds a small multiple of the pixels to the outputs of the network."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images) + 0.01 * images.flatten(1)[:, :6]


@pytest.mark.parametrize("before", [None, b"an earlier export"])
def test_a_file_that_computes_something_else_is_an_error_and_not_written(own, monkeypatch, before):
    right = forms.EXPORT_FORMS["torchscript"]
    wrong = right._replace(write=lambda module, *others: right.write(Wrong(module), *others))
    monkeypatch.setitem(forms.EXPORT_FORMS, "torchscript", wrong)
    if before is not None:
        (own / "student.pt").write_bytes(before)
    listed = sorted(own.iterdir())
    result = dfkd("export", own, "--to", "torchscript", "--overwrite")
    assert result.exit_code == 1
    assert "differ by" in result.stderr
    assert result.stdout == ""
    assert sorted(own.iterdir()) == listed
    assert before is None or (own / "student.pt").read_bytes() == before


def test_the_error_for_a_fixed_batch_size_suggests_to_remove_the_flag(tmp_path):
    program = torch.export.export(FixedBatch(), (torch.rand(8, *SPEC.size),))
    torch.export.save(program, tmp_path / "fixed.pt2")
    out = tmp_path / "out.pt2"
    result = dfkd("export", tmp_path / "fixed.pt2", "--to", "pt2", "--dynamic-batch", "--out", out, *SPEC_FLAGS)
    assert result.exit_code == 1
    assert "without --dynamic-batch" in result.stderr
    assert not out.exists()


class Noisy(nn.Linear):
    """Adds noise in evaluation mode too."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.flatten(1)) + torch.rand(len(input), 1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
def test_a_random_network_is_distinguished_from_a_wrong_file(tmp_path):
    flags = ["--input-size", "1x32x32", "--mean", "0.3", "--std", "0.2"]
    path = script(Noisy(1024, 6).eval(), tmp_path / "noisy.pt")
    result = dfkd("export", path, "--to", "torchscript", "--out", tmp_path / "out.pt", *flags)
    assert result.exit_code == 1
    assert "part of it is random" in result.stderr
    assert not (tmp_path / "out.pt").exists()


def test_torchscript_is_exported_as_every_form(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 6)).eval()
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        torch.jit.save(torch.jit.script(network), tmp_path / "scripted.pt")
    again = tmp_path / "again.pt"
    flags = [*SPEC_FLAGS, "--with-preprocessing", "--dynamic-batch"]
    result = dfkd("export", tmp_path / "scripted.pt", "--to", "torchscript", "--out", again, *flags)
    assert result.exit_code == 0, result.stderr
    images = torch.rand(3, *SPEC.size)
    torch.testing.assert_close(load_classifier(str(again))(images), network((images - 0.3) / 0.2))
    result = dfkd("export", tmp_path / "scripted.pt", "--to", "pt2", "--out", tmp_path / "layers.pt2", *flags)
    assert result.exit_code == 0, result.stderr
    torch.testing.assert_close(load_classifier(str(tmp_path / "layers.pt2"))(images), network((images - 0.3) / 0.2))


class Branching(nn.Linear):
    """Takes a branch that depends on the values of the images."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        flat = input.flatten(1)
        if float(flat.sum()) > 0.0:
            flat = 2.0 * flat
        return nn.functional.linear(flat, self.weight, self.bias)


def test_torchscript_whose_branch_depends_on_the_images_is_only_exported_as_torchscript(tmp_path):
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        torch.jit.save(torch.jit.script(Branching(256, 6).eval()), tmp_path / "scripted.pt")
    result = dfkd("export", tmp_path / "scripted.pt", "--to", "pt2", *SPEC_FLAGS)
    assert result.exit_code == 2, result.stderr
    assert "the checkpoint it was made from" in result.stderr
    assert "cannot be traced" in result.stderr


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
@pytest.mark.parametrize("flags", [[], ["--with-preprocessing"]])
@pytest.mark.parametrize(
    ("kind", "outputs", "squash", "said"),
    [
        ("softmax", 6, nn.Softmax(dim=1), "probabilities of 6 classes"),
        ("score", 1, nn.Identity(), "one number, which is above 0 for the second of 2 classes"),
        ("probability", 1, nn.Sigmoid(), "one number, the probability of the second of 2 classes"),
    ],
)
def test_the_file_has_the_form_of_outputs_that_the_summary_names(tmp_path, kind, outputs, squash, said, flags):
    network = nn.Sequential(create(ARCH, num_classes=outputs), squash).eval()
    path = script(network, tmp_path / "t.pt")
    flags = [*flags, "--input-size", "1x32x32", "--mean", "0.3", "--std", "0.2", "--out", tmp_path / "out.pt"]
    result = dfkd("export", path, "--to", "torchscript", *flags)
    assert result.exit_code == 0, result.stderr
    assert f"output   {said}\n" in result.stdout
    images = torch.rand(1, *SIZE)
    normalised = (images - 0.3) / 0.2
    given = images if "--with-preprocessing" in flags else normalised
    torch.testing.assert_close(torch.jit.load(tmp_path / "out.pt")(given), network(normalised))
    report = json.loads(dfkd("export", path, "--to", "torchscript", *flags, "--overwrite", "--json").stdout)
    assert report["returned"] == kind


@pytest.mark.parametrize(
    ("squash", "name"),
    [(nn.Softmax(dim=1), "probabilities"), (nn.Sigmoid(), "probabilities"), (nn.Identity(), "logits")],
)
def test_the_output_of_an_onnx_file_is_named_by_its_form(tmp_path, squash, name):
    needs_onnx()
    network = nn.Sequential(create(ARCH, num_classes=6), squash).eval()
    torch.export.save(torch.export.export(network, (torch.rand(2, *SIZE),)), tmp_path / "t.pt2")
    result = dfkd("export", tmp_path / "t.pt2", "--to", "onnx", "--mean", "0.3", "--std", "0.2")
    assert result.exit_code == 0, result.stderr
    (output,) = onnx_session(tmp_path / "t.onnx").get_outputs()
    assert output.name == name
    inputs = torch.rand(4, *SIZE)
    again = load_onnx(str(tmp_path / "t.onnx"), LoadOptions())
    assert again.returned == load_classifier(str(tmp_path / "t.pt2"), LoadOptions(mean=(0.3,), std=(0.2,))).returned
    torch.testing.assert_close(again.network(inputs[:1]), network(inputs[:1]), atol=1e-5, rtol=1e-4)


def test_the_missing_extra_is_named(own, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = dfkd("export", own, "--to", "onnx")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "onnxruntime" in result.stderr
    assert "pip install 'dfkd[export]'" in result.stderr
    assert not (own / "student.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{own}", "--to", "pt3"], 2, "pt2"),
        (["{own}", "--to", "pt2", "--out", "{own}/config.json"], 2, "--overwrite"),
        (["{own}", "--to", "pt2", "--out", "{own}/student.safetensors", "--overwrite"], 2, "the network itself"),
        (["{own}", "--to", "pt2", "--out", "{own}"], 2, "folder"),
        (["{own}", "--to", "pt2", "--out", "{own}/no/x.pt2"], 2, "no folder"),
        (["{own}/nowhere.pt", "--to", "pt2", "--out", "{own}/x.pt2"], 2, "does not exist"),
        (["{own}/config.json", "--to", "pt2"], 3, "JSON"),
    ],
)
def test_mistake_is_one_line_and_nothing_written(own, arguments, code, message):
    before = {path: path.read_bytes() for path in own.iterdir()}
    result = dfkd("export", *[argument.format(own=own) for argument in arguments])
    assert result.exit_code == code
    assert result.stdout == ""
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert {path: path.read_bytes() for path in own.iterdir()} == before
