"""`dfkd compress` as a user meets it: its files, its exit codes, and nothing written after a failure."""

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import safetensors
import timm
import torch
from command_line import LOOK, TINY_RUN, installed, save_teacher
from PIL import Image
from torch import nn

from dfkd_cli.cli import main
from dfkd_cli.cli.arguments import command_line
from dfkd_cli.compression.output_folder import WRITTEN


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pt")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        for number in range(4):
            Image.new("L", (8, 8), 20 * number + ord(name)).save(folder / name / f"{number}.png")
    return folder


def dfkd(monkeypatch, *arguments: object) -> int:
    """The exit code of the command line's entry point."""
    monkeypatch.setattr(sys, "argv", ["dfkd", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def compress(monkeypatch, teacher: object, out: Path, *more: object) -> int:
    return dfkd(monkeypatch, "compress", teacher, *LOOK, "--student", "cifar_resnet8", "--out", out, *TINY_RUN, *more)


def test_a_run_writes_every_file_and_the_report_holds_what_tools_read(monkeypatch, teacher, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert compress(monkeypatch, teacher, out, "--eval", images) == 0
    assert {entry.name for entry in out.iterdir()} == set(WRITTEN) - {"selected.csv"}
    report = json.loads((out / "report.json").read_text())
    assert report["teacher"]["batchnorm_layers"] == 1
    assert report["student"]["parameters"] < 100_000
    assert 0 <= report["student"]["accuracy"] <= 1
    assert report["images"]["generated"] >= report["images"]["kept"] == 16
    assert report["time"]["total_s"] >= report["time"]["synthesis_s"] + report["time"]["distillation_s"] > 0
    assert report["memory"]["peak_bytes"] > 1e6
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4
    assert lines[-1]["progress"] == 1.0
    (evaluate,) = [line for line in (out / "report.md").read_text().splitlines() if line.startswith("dfkd evaluate")]
    assert evaluate.endswith(shlex.join(map(str, ["--teacher", teacher, *LOOK])))
    page = (out / "report.html").read_text()
    assert f"{100 * report['agreement']:.2f} %" in page
    assert page.count("<svg") >= 5
    assert report["student"]["sha256"] in (out / "README.md").read_text()
    assert "student.safetensors" in capsys.readouterr().out
    with safetensors.safe_open(out / "student.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["dfkd"])
    assert facts["teacher_sha256"] == report["teacher"]["sha256"]
    assert facts["recipe_sha256"] == report["recipe"]["sha256"]


def test_without_evaluation_data_accuracies_are_null_and_agreement_says_what_it_is(monkeypatch, teacher, tmp_path):
    assert compress(monkeypatch, teacher, tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["student"]["accuracy"] is report["relative_accuracy"] is None
    assert 0 <= report["agreement"] <= 1
    assert "synthetic" in report["agreement_on"]


def test_the_student_is_a_teacher_for_the_next_run_and_a_timm_model(monkeypatch, teacher, tmp_path):
    assert compress(monkeypatch, teacher, tmp_path / "one") == 0
    chained = ("compress", tmp_path / "one", "--student", "cifar_resnet8", "--out", tmp_path / "two")
    assert dfkd(monkeypatch, *chained, *TINY_RUN) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'one'}", pretrained=True)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_the_resolved_recipe_and_the_seed_repeat_the_student_bit_for_bit(monkeypatch, teacher, tmp_path):
    assert compress(monkeypatch, teacher, tmp_path / "one", "--seed", 3) == 0
    again = ("compress", teacher, *LOOK, "--student", "cifar_resnet8", "--out", tmp_path / "two", "--seed", 3)
    assert dfkd(monkeypatch, *again, "--recipe", tmp_path / "one" / "recipe.yaml") == 0
    shas = [json.loads((tmp_path / name / "report.json").read_text())["student"]["sha256"] for name in ("one", "two")]
    assert shas[0] == shas[1]


def test_a_teacher_without_batchnorm_is_told_once_and_reported(monkeypatch, tmp_path, capsys):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    path = tmp_path / "teacher.pt2"
    batch = torch.export.Dim.DYNAMIC
    torch.export.save(torch.export.export(network, (torch.rand(4, 1, 8, 8),), dynamic_shapes=({0: batch},)), path)
    assert compress(monkeypatch, path, tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert said.count("no BatchNorm") == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["teacher"]["batchnorm_layers"] == 0
    assert any("no BatchNorm" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--recipe", "sdd"), 2, "did you mean 'ssd'"),
        (("--set", "train.lrr=1"), 2, "did you mean 'lr'"),
        (("--budget", "soon"), 2, "90s, 30m or 2h"),
        (("--budget", "1s"), 2, "--budget"),
        (("--student", "cifar_resnet9"), 2, "cifar_resnet8"),
        (("--eval", "nowhere"), 2, "nowhere"),
        (("--device", "tpu"), 2, "auto, cpu, cuda"),
        (("--input-size", "32"), 2, "3x32x32"),
        (
            ("--input-size", "3x8x8"),
            3,
            "but got 3 channels instead; it accepts 1x8x8; give its true size with --input-size",
        ),
        (("--num-classes", "7"), 2, "7 classes"),
        (("--set", "train.lr=1e30", "--set", "train.steps=8"), 1, "not finite"),
    ],
)
def test_a_mistake_is_one_line_an_exit_code_and_no_files(monkeypatch, teacher, tmp_path, capsys, more, code, message):
    assert compress(monkeypatch, teacher, tmp_path / "out", *more) == code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert message in said[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", [".", "curves", "../link/curves"])
@pytest.mark.parametrize("where", ["--out", "--resume"])
def test_curves_that_would_fill_the_output_folder_are_refused_at_once(monkeypatch, tmp_path, capsys, where, below):
    (tmp_path / "link").symlink_to("out")
    flags = ("--student", "cifar_resnet8", where, tmp_path / "out", "--tensorboard", tmp_path / "out" / below)
    (tmp_path / "out").mkdir()
    assert dfkd(monkeypatch, "compress", "nowhere.pt", *flags) == 2
    assert "is inside the output folder" in capsys.readouterr().err


def test_a_path_that_is_not_utf8_costs_no_result(monkeypatch, teacher, tmp_path, capsys):
    odd = Path(shutil.copy(teacher, tmp_path / os.fsdecode(b"t\xff.pt")))
    out = tmp_path / os.fsdecode(b"out\xff")
    assert compress(monkeypatch, odd, out) == 0
    # safetensors reads no file below such a path, so the student is not exported.
    assert {entry.name for entry in out.iterdir()} == set(WRITTEN) - {"selected.csv", "student.pt2"}
    assert any(
        note.startswith("There is no student.pt2") for note in json.loads((out / "report.json").read_text())["notes"]
    )
    assert json.loads((out / "report.json").read_text("utf-8"))["teacher"]["source"] == str(odd)
    for name in ("report.md", "report.html", "README.md"):
        assert r"t\udcff.pt" in (out / name).read_text("utf-8")
    assert r"out\udcff" in capsys.readouterr().out


def test_the_command_to_repeat_holds_options_that_were_environment_variables(monkeypatch):
    monkeypatch.setenv("DFKD_COMPRESS_SET", "train.lr=0.05 train.steps=3")
    monkeypatch.setenv("DFKD_COMPRESS_SEED", "3")
    monkeypatch.setenv("DFKD_COMPRESS_POOL", "")
    monkeypatch.setattr(sys, "argv", ["dfkd", "compress", "a b.pt"])
    assert command_line() == (
        "DFKD_COMPRESS_SEED=3 DFKD_COMPRESS_SET='train.lr=0.05 train.steps=3' dfkd compress 'a b.pt'"
    )


class Payload:
    """Touches a file when unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("kind", ["missing", "empty", "html", "truncated", "flipped", "pickle"])
def test_a_broken_or_hostile_teacher_ends_with_code_2_or_3_and_nothing_written(
    monkeypatch, teacher, tmp_path, capsys, kind
):
    path, marker = tmp_path / "bad.pt", tmp_path / "executed"
    content = bytearray(teacher.read_bytes())
    content[len(content) // 2] ^= 0xFF
    contents = {"empty": b"", "html": b"<!DOCTYPE html><title>404</title>", "flipped": bytes(content)}
    if kind == "pickle":
        torch.save(Payload(marker), path)
    elif kind != "missing":
        path.write_bytes(contents.get(kind, teacher.read_bytes()[:-100]))
    expected = 2 if kind == "missing" else 3
    assert compress(monkeypatch, path, tmp_path / "out") == expected
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_an_earlier_result_is_kept_without_overwrite_and_replaced_with_it(monkeypatch, teacher, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.md").write_text("old")
    assert compress(monkeypatch, teacher, out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "report.md").read_text() == "old"
    assert compress(monkeypatch, teacher, out, "--overwrite") == 0
    assert (out / "report.md").read_text() != "old"


def test_the_installed_command_compresses_and_prints_no_warnings(teacher, tmp_path):
    done = installed("compress", teacher, *LOOK, *TINY_RUN, "--student", "cifar_resnet8", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "arning" not in done.stderr
    assert (tmp_path / "out" / "student.safetensors").is_file()
