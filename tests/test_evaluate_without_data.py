"""`dfkd evaluate` without labelled images, and the files beside a student that it and others need."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from command_line import LOOK, TINY_RUN, dfkd, save_teacher
from PIL import Image

import dfkd_cli
from dfkd_cli.errors import DfkdError
from dfkd_cli.evaluation.calibration import CALIBRATION_FILE, read_calibration
from dfkd_cli.evaluation.evaluation import Evaluation
from dfkd_cli.synthesis.source import GeneratedImages


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with teacher.pt and, in out/, its student; `kept.pt` holds the images that the student learned from."""
    root = tmp_path_factory.mktemp("made")
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        sample = GeneratedImages.sample

        def recorded(self):
            kept.append(self.memory.spread(10**6))
            return sample(self)

        patch.setattr(GeneratedImages, "sample", recorded)
        run(save_teacher(root / "teacher.pt"), root / "out")
    torch.save(torch.cat(kept), root / "kept.pt")
    return root


@pytest.fixture
def out(made, tmp_path) -> Path:
    """A copy of the student's folder, which a test can change."""
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


def run(teacher: Path, out: Path, *more: object) -> None:
    result = dfkd("compress", teacher, *LOOK, "--out", out, *TINY_RUN, *more)
    assert result.exit_code == 0, result.output


def evaluate(*arguments: object) -> dict[str, Any]:
    result = dfkd("evaluate", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(*arguments: object, code: int) -> str:
    """Return the one line on stderr of a command that ends with this exit code."""
    result = dfkd("evaluate", *arguments)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert (result.exit_code, len(lines)) == (code, 1), result.output
    return lines[0]


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("name", ["student.safetensors", ""], ids=["file", "folder"])
def test_a_student_alone_is_checked_and_its_agreement_is_that_of_the_report(made, name):
    facts = evaluate(made / "out" / name)
    stated = report(made / "out")
    assert facts["agreement"] == stated["agreement"] == stated["calibration"]["agreement"]
    assert facts["images"] == stated["calibration"]["images"] == 1000
    assert facts["sha256"] == stated["student"]["sha256"]
    assert facts["report_matches"] is True
    assert facts["parameters"] == stated["student"]["parameters"]
    assert facts["macs"] > 0
    assert facts["latency_ms"] > 0
    assert facts["kl"] > 0
    assert (
        facts["accuracy"] is facts["accuracy_top5"] is facts["teacher_accuracy"] is facts["relative_accuracy"] is None
    )
    assert facts["remark"] == "accuracy was not measured: no labelled images were given"
    assert "synthetic" in facts["agreement_on"]


def test_the_figures_in_words_say_that_accuracy_was_not_measured(made):
    result = dfkd("evaluate", made / "out")
    assert result.exit_code == 0, result.stderr
    assert "Accuracy was not measured: no labelled images were given. Agreement is not accuracy." in result.stdout
    for phrase in ("agreement with the teacher", "latency of one image", "parameters", "that of the report"):
        assert phrase in result.stdout


def test_the_stored_logits_are_those_of_the_teacher(made):
    stored = evaluate(made / "out")
    compared = evaluate(made / "out", "--teacher", made / "teacher.pt", *LOOK)
    assert compared["agreement"] == stored["agreement"]
    assert compared["kl"] == pytest.approx(stored["kl"], rel=1e-4)
    same = evaluate(made / "out", "--teacher", made / "out")
    assert (same["agreement"], same["kl"]) == (1.0, pytest.approx(0.0, abs=1e-6))


def test_agreement_and_divergence_are_those_of_their_definitions(made):
    calibration = read_calibration(made / "out" / CALIBRATION_FILE)
    with torch.no_grad():
        logits = dfkd_cli.load(made / "out")(calibration.images.float() / 255)
    same = (logits.argmax(1) == calibration.logits.argmax(1)).float().mean()
    teacher, student = calibration.logits.double().softmax(1), logits.double().softmax(1)
    kl = (teacher * (teacher / student).log()).sum(1).mean()
    facts = evaluate(made / "out", "--batch-size", 64)
    assert facts["agreement"] == pytest.approx(float(same))
    assert facts["kl"] == pytest.approx(float(kl), rel=1e-4)


def test_no_calibration_image_was_learned_from(made):
    calibration = read_calibration(made / "out" / CALIBRATION_FILE)
    learned = (torch.load(made / "kept.pt") * 255).round().byte()
    pixels = {bytes(image.flatten().tolist()) for image in learned}
    assert len(pixels) >= 16
    assert calibration.kind == "synthetic"
    assert not any(bytes(image.flatten().tolist()) in pixels for image in calibration.images)


@pytest.mark.parametrize("more", [(), ("--teacher", "{teacher}", *LOOK)], ids=["stored", "teacher"])
def test_agreement_is_a_gate(made, more):
    more = [str(word).format(teacher=made / "teacher.pt") for word in more]
    agreement = report(made / "out")["agreement"]
    assert 0 < agreement < 1, "the gate can be missed"
    evaluate(made / "out", *more, "--min-agreement", agreement)
    line = refused(made / "out", *more, "--min-agreement", 1, code=5)
    assert f"agreement {agreement:.4f} is below --min-agreement 1" in line


def test_a_missed_gate_leaves_the_figures_in_the_document(made):
    result = dfkd("evaluate", made / "out", "--min-agreement", 1, "--json")
    facts = json.loads(result.stdout)
    assert facts["error"]["exit_code"] == result.exit_code == 5
    assert facts["images"] == 1000


def test_another_student_than_that_of_the_report_is_refused(out):
    path = out / "student.safetensors"
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = safetensors.torch.load_file(path)
    name = next(name for name, weight in weights.items() if weight.is_floating_point())
    weights[name] = weights[name] + 0.01
    safetensors.torch.save_file(weights, path, metadata)
    assert "is not the student that" in refused(path, code=3)
    (out / "report.json").unlink()
    assert CALIBRATION_FILE in refused(path, code=3)


def test_weights_that_are_not_finite_are_refused(out):
    path = out / "student.safetensors"
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = safetensors.torch.load_file(path)
    name = next(name for name, weight in weights.items() if weight.is_floating_point())
    weights[name].view(-1)[0] = torch.nan
    safetensors.torch.save_file(weights, path, metadata)
    assert "NaN" in refused(path, code=3) or "finite" in refused(path, code=3)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"student": 1}'])
def test_only_a_report_of_dfkd_is_compared(out, content):
    (out / "report.json").write_text(content)
    if content == "{":
        assert "report.json" in refused(out, code=3)
    else:
        assert evaluate(out)["report_matches"] is None


def test_a_missing_calibration_file_is_one_line(out, made):
    (out / CALIBRATION_FILE).unlink()
    line = refused(out, code=2)
    for word in (CALIBRATION_FILE, "--teacher", "--images", "--data"):
        assert word in line
    assert "--images" in refused(out, "--teacher", made / "teacher.pt", *LOOK, code=2)


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty", "kind", "count", "nan", "size", "classes"])
def test_a_damaged_calibration_file_is_one_line(out, damage):
    path = out / CALIBRATION_FILE
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":
        safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    else:
        tensors["logits"] = tensors["logits"][: 10 if damage == "count" else None]
        if damage == "nan":
            tensors["logits"][3, 1] = torch.nan
        if damage == "size":
            tensors["images"] = tensors["images"][..., :-1].contiguous()
        if damage == "classes":
            tensors["logits"] = tensors["logits"][:, :2].contiguous()
        if damage == "kind":
            metadata["calibration"] = metadata["calibration"].replace("synthetic", "real")
        safetensors.torch.save_file(tensors, path, metadata)
    assert str(path) in refused(out, code=3)


def test_a_run_can_leave_the_calibration_file_out(made, tmp_path):
    run(made / "teacher.pt", tmp_path / "out", "--no-calibration")
    assert not (tmp_path / "out" / CALIBRATION_FILE).exists()
    left, whole = report(tmp_path / "out"), report(made / "out")
    assert left["calibration"] is None
    assert (left["agreement"], left["student"]["sha256"]) == (whole["agreement"], whole["student"]["sha256"])


def test_images_of_any_tree_are_compared_with_a_teacher(made, tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    shown = torch.randint(256, (5, 8, 8), dtype=torch.uint8)
    for number, image in enumerate(shown):
        Image.fromarray(image.numpy()).save((folder if number % 2 else tmp_path) / f"{number}.png")
    facts = evaluate(made / "out", "--images", tmp_path, "--teacher", made / "teacher.pt", *LOOK)
    student, teacher = (
        dfkd_cli.load(made / "out"),
        dfkd_cli.load(made / "teacher.pt", input_size=(1, 8, 8), mean=[0.4], std=[0.3]),
    )
    with torch.no_grad():
        classes = [network(shown[:, None].float() / 255).argmax(1) for network in (student, teacher)]
    assert (facts["images"], facts["agreement_on"]) == (5, str(tmp_path))
    assert facts["agreement"] == pytest.approx(float((classes[0] == classes[1]).float().mean()))


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--images", "{out}"], 2, "--teacher"),
        (["--images", "{out}", "--data", "{out}"], 2, "exclude each other"),
        (["--images", "nowhere", "--teacher", "{out}"], 2, "no such folder"),
        (["--min-accuracy", "0.5"], 2, "--data"),
        (["--max-drop", "0.5", "--teacher", "{out}"], 2, "--data"),
        (["--min-agreement", "0.5", "--data", "{out}"], 2, "--teacher"),
        (["--min-agreement", "50"], 2, "min-agreement"),
    ],
)
def test_options_that_do_not_fit_are_one_line(made, flags, code, message):
    assert message in refused(made / "out", *[flag.format(out=made / "out") for flag in flags], code=code)


def test_a_folder_without_image_files_is_named(made, tmp_path):
    line = refused(made / "out", "--images", tmp_path, "--teacher", made / "out", code=2)
    assert f"--images {tmp_path}: no image files" in line


def test_python_gives_the_result_of_the_command(made):
    evaluation = dfkd_cli.evaluate(made / "out")
    assert isinstance(evaluation, Evaluation)
    assert evaluation.agreement == evaluate(made / "out")["agreement"]


def test_the_exported_student_gives_the_same_logits_without_dfkd(made):
    program: Any = torch.export.load(made / "out" / "student.pt2").module()
    student = dfkd_cli.load(made / "out" / "student.safetensors")
    for count in (1, 5):
        images = torch.rand(count, 1, 8, 8)
        with torch.no_grad():
            assert torch.allclose(program(images), student(images), rtol=0, atol=1e-4)


def test_the_exported_student_is_checked_with_the_same_images(made):
    facts = evaluate(made / "out" / "student.pt2")
    assert facts["agreement"] == report(made / "out")["agreement"]
    assert facts["report_matches"] is None


def test_a_student_that_cannot_be_exported_has_a_note(made, tmp_path, monkeypatch):
    def fail(job):
        raise DfkdError(f"{job.source} cannot be exported as pt2: no reason")

    monkeypatch.setattr("dfkd_cli.compression.result_files.export", fail)
    run(made / "teacher.pt", tmp_path / "out")
    assert not (tmp_path / "out" / "student.pt2").exists()
    note = "There is no student.pt2: student.safetensors cannot be exported as pt2: no reason."
    assert note in report(tmp_path / "out")["notes"]


def test_a_result_is_replaced_with_overwrite(made, out):
    run(made / "teacher.pt", out, "--overwrite")
    assert (out / "student.pt2").exists()


def test_the_summary_and_the_card_name_the_calibration_file(made, out):
    result = dfkd("compress", made / "teacher.pt", *LOOK, "--out", out, *TINY_RUN, "--overwrite")
    expected = f"calibration.safetensors ({(out / CALIBRATION_FILE).stat().st_size / 1e6:.2f} MB)"
    assert expected in " ".join(result.stdout.split())  # a line breaks where a long path of the test ends it
    assert "`calibration.safetensors`" in (out / "README.md").read_text()


def test_an_architecture_by_name_is_loaded_by_timm_and_evaluated_beside_its_calibration_file(made, tmp_path):
    out = tmp_path / "out"
    run(made / "teacher.pt", out, "--student", "cifar_resnet8")
    assert (out / CALIBRATION_FILE).exists()
    network = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(network((images - 0.4) / 0.3), dfkd_cli.load(out)(images), atol=1e-5)
    assert evaluate(out)["agreement"] == evaluate(out / "student.safetensors")["agreement"] == report(out)["agreement"]
    assert dfkd("export", out, "--to", "torchscript").exit_code == 0
    assert (out / "student.pt").exists()
    run(made / "teacher.pt", out, "--student", "cifar_resnet8", "--overwrite", "--no-calibration")
    assert (out / "model.safetensors").read_bytes() == (out / "student.safetensors").read_bytes()
