"""`dfkd compress --recipe unlabeled --pool DIR` as a user meets it."""

import csv
import json
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

import dfkd_cli.cli
from dfkd_cli.compression.output_folder import WRITTEN

SMALL = (
    "train.steps=4",
    "train.batch_size=8",
    "train.report_every=2",
    "options.selection.keep=20",
    "options.embedding.relation_images=4",
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A TorchScript file, optimised for inference: no gradients, no BatchNorm layers, which a pool does not need."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)]
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        network = torch.jit.trace(nn.Sequential(*layers).eval(), torch.rand(2, 1, 8, 8))
        torch.jit.save(torch.jit.freeze(network), path)
    return path


@pytest.fixture
def pool(tmp_path) -> Path:
    folder = tmp_path / "pool" / "whatever"
    folder.mkdir(parents=True)
    for number, image in enumerate(torch.randint(256, (30, 8, 8), dtype=torch.uint8)):
        Image.fromarray(image.numpy()).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"broken")
    (folder / "caption.txt").write_text("no image")
    return tmp_path / "pool"


def compress(teacher: Path, out: Path, *more: object, values: tuple[str, ...] = SMALL) -> Result:
    changes = [part for value in values for part in ("--set", value)]
    look = ("--input-size", "1x8x8", "--mean", "0.4", "--std", "0.3", "--student", "cifar_resnet8")
    return CliRunner().invoke(
        dfkd_cli.cli.app, ["compress", str(teacher), *look, "--out", str(out), *changes, *map(str, more)]
    )


def test_a_pool_is_chosen_from_learned_from_and_reported(teacher, pool, tmp_path):
    done = compress(teacher, tmp_path / "out", "--recipe", "unlabeled", "--pool", pool)
    assert done.exit_code == 0, done.output
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == set(WRITTEN)
    with (tmp_path / "out" / "selected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["file"] for row in rows}) == 20
    assert all((pool / row["file"]).is_file() and int(row["pseudo_class"]) in range(3) for row in rows)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["images"] == {"generated": 30, "kept": 20, "pool": str(pool)}
    assert report["agreement_on"].startswith("images of the pool")
    assert any("1 unreadable skipped" in note for note in report["notes"])
    assert any("1 file was passed over (1 with .txt" in note for note in report["notes"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "synthetic images were made" not in text
    assert str(pool) in text
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["phase"] == "warm-up"
    counts = next(line["metrics"]["selection/class_counts"] for line in lines if line["phase"] == "training")
    assert sum(counts) == 20


def test_a_recipe_repeats_itself_from_the_same_pool(teacher, pool, tmp_path):
    shas = []
    for out in (tmp_path / "one", tmp_path / "two"):
        assert compress(teacher, out, "--recipe", "unlabeled", "--pool", pool).exit_code == 0
        shas.append(json.loads((out / "report.json").read_text())["student"]["sha256"])
    assert shas[0] == shas[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--recipe", "unlabeled"), "--pool DIR"),
        (("--recipe", "unlabeled", "--pool", "nowhere"), "--pool nowhere: no such folder"),
        (("--recipe", "ssd", "--pool", "."), "recipe ssd generates its images; leave the option out"),
    ],
)
def test_a_pool_that_does_not_fit_the_recipe_is_one_line_and_no_files(teacher, tmp_path, more, message):
    done = compress(teacher, tmp_path / "out", *more, values=())
    assert (done.exit_code, done.output.count("error: ")) == (2, 1)
    assert message in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_pool_without_a_readable_image_leaves_nothing_behind(teacher, tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "x.png").write_bytes(b"broken")
    done = compress(teacher, tmp_path / "out", "--recipe", "unlabeled", "--pool", tmp_path / "pool")
    assert done.exit_code == 2
    assert "none of its 1 image files can be read" in done.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["pool"]


@pytest.mark.parametrize("measured", [".", "whatever", ".."])
def test_a_student_is_not_evaluated_on_images_it_is_trained_on(teacher, pool, tmp_path, measured):
    done = compress(teacher, tmp_path / "out", "--recipe", "unlabeled", "--pool", pool, "--eval", f"{pool}/{measured}")
    assert done.exit_code == 2
    assert "share images" in done.stderr
    assert not (tmp_path / "out").exists()
