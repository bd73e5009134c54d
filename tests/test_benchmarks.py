"""The benchmark commands: rows without paths of a machine, tables, suites, the training of a teacher."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from benchmarks import agreement, last_tenth, results, run, table, train_teacher
from benchmarks.experiment import SUITES, TEACHERS, Experiment, arch_of, load_suite
from benchmarks.places import Places
from dfkd_cli.loading import load_classifier
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.recipe.shipped import shipped_recipes

TINY = ("train.steps=2", "train.batch_size=8", "train.report_every=2", "options.buffer.size=8")
TINY += ("options.warmup.rounds=1", "options.generator.batch_size=8", "options.generator.width=16")


def image_folder(folder: Path, classes: int, shape: tuple[int, ...], each: int = 2) -> Path:
    rng = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"{number:02}").mkdir(parents=True)
        for index in range(each):
            pixels = rng.integers(0, 256, shape).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02}" / f"{index}.png")
    return folder


def call(monkeypatch, command, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
    try:
        command()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_run_appends_a_row_once_per_commit_and_names_no_folder_of_this_machine(monkeypatch, tmp_path, capfd):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    batch = torch.export.Dim.DYNAMIC
    (tmp_path / "teachers").mkdir()
    teacher = tmp_path / "teachers" / "own.pt2"
    torch.export.save(torch.export.export(network, (torch.rand(4, 1, 8, 8),), dynamic_shapes=({0: batch},)), teacher)
    data = image_folder(tmp_path / "data" / "test", 3, (8, 8))
    monkeypatch.setattr(results, "checkout", lambda: ("abc1234", False))
    roots = ["--data-root", tmp_path / "data", "--teachers-root", tmp_path / "teachers"]
    places = ["--results", tmp_path / "results.jsonl", "--out", tmp_path / "out", *roots]
    asked = ["--recipe", "ssd", "--teacher", teacher, "--mean", "0.4", "--std", "0.3", "--student", "cifar_resnet8"]
    asked += ["--eval", data, "--seed", 3, *(part for value in TINY for part in ("--set", value))]

    assert call(monkeypatch, run.main, *asked, *places) == 0
    text = (tmp_path / "results.jsonl").read_text()
    row = json.loads(text)
    assert str(tmp_path) not in text
    assert str(results.ROOT) not in text
    assert (row["recipe"], row["teacher"], row["eval"]) == ("ssd", "TEACHERS/own.pt2", "DATA/test")
    assert (row["seed"], row["budget"], row["steps"]) == (3, None, 2)
    assert 0 <= row["student_accuracy"] <= 1
    assert row["images_generated"] >= row["images_kept"] == 8
    assert row["total_s"] > row["synthesis_s"] > 0
    assert (row["commit"], row["dirty"]) == ("abc1234", False)
    assert row["machine"]["cores"] >= 1
    assert row["command"].startswith("dfkd compress TEACHERS/own.pt2 --mean 0.4 --std 0.3 --recipe ssd")

    assert call(monkeypatch, run.main, *asked, *places) == 0
    assert "skipped" in capfd.readouterr().out
    assert (tmp_path / "results.jsonl").read_text() == text

    (folder,) = (tmp_path / "out").iterdir()
    assert call(monkeypatch, agreement.main, folder, folder) == 0
    figures = f"{row['agreement']:.3f} | {100 * row['student_accuracy']:.2f} %"
    lines = capfd.readouterr().out.splitlines()
    assert [figures in line for line in lines] == [False, False, True, True, False]
    assert lines[-1] == "rank correlation over 2 students: 1.000"


def test_a_failed_run_leaves_no_row_and_fails_the_command(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(run, "DFKD", (sys.executable, "-c", "raise SystemExit(2)"))
    places = ["--results", tmp_path / "results.jsonl", "--out", tmp_path / "out"]
    asked = ["--recipe", "ssd", "--teacher", "nowhere.pt", "--student", "cifar_resnet8", "--again"]
    assert call(monkeypatch, run.main, *asked, *places) == 1
    assert "exit code 2" in capfd.readouterr().out
    assert not (tmp_path / "results.jsonl").exists()


def example(reported: dict | None = None, **changes) -> dict:
    report = {
        "student": {"accuracy": 0.7, "parameters": 10},
        "teacher": {"accuracy": 0.9, "parameters": 20},
        "relative_accuracy": 0.7 / 0.9,
        "segmentation": None,
        "agreement": 0.75,
        "agreement_on": "evaluation data",
        "images": {"generated": 1000, "kept": 100},
        "steps": 50,
        "time": {"total_s": 60.0, "synthesis_s": 30.0, "distillation_s": 20.0},
        "memory": {"peak_bytes": 10**9},
        "recipe": {"name": "ssd", "sha256": "0"},
        "device": "cpu",
        "precision": "bfloat16",
    } | (reported or {})
    experiment = Experiment("ssd", "resnet20", "cifar_resnet8", budget="5m", suite="ssd-ablation", name="default")
    return results.make_row(experiment, report) | {"commit": "aaaaaaaaaa", "dirty": False} | changes


@pytest.fixture
def no_git(monkeypatch):
    monkeypatch.setattr(results, "checkout", lambda: ("aaaaaaaaaa", False))


def test_a_row_counts_for_its_own_commit_and_values_only(no_git, monkeypatch):
    experiment = Experiment("ssd", "resnet20", "cifar_resnet8", budget="5m")
    assert results.is_present([example()], experiment), "also when another suite ran it"
    assert not results.is_present([example(seed=1)], experiment)
    assert not results.is_present([example(overrides=["train.lr=1"])], experiment)
    assert not results.is_present([example(commit="bbb")], experiment)
    assert not results.is_present([example(dirty=True)], experiment)
    monkeypatch.setattr(results, "checkout", lambda: ("aaaaaaaaaa", True))
    assert not results.is_present([example()], experiment)


def test_the_table_puts_seeds_together_and_shows_the_last_commit(no_git):
    rows = [
        example(commit="old", student_accuracy=0.1),
        example(seed=0, student_accuracy=0.6),
        example(seed=1, student_accuracy=0.7),
        example(seed=1, student_accuracy=0.8),
        example(suite=None, name=None, recipe="cgdd", student_accuracy=None, relative_accuracy=None, dirty=True),
    ]
    text = table.render(rows)
    assert "| 0, 1 | 70.00 % (60.00 to 80.00) |" in text
    assert "10.00" not in text
    assert text.index("### ssd-ablation") < text.index("### single runs") < text.index("`cgdd`")
    assert "aaaaaaa\\*" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(table.COLUMNS) + 1}


def test_the_table_shows_the_mean_iou_of_segmentation_networks(no_git):
    found = {"student": {"miou": 0.31}, "teacher": {"miou": 0.5}, "relative_miou": 0.62}
    row = example({"student": {"accuracy": None, "parameters": 10}, "relative_accuracy": None, "segmentation": found})
    assert (row["student_miou"], row["teacher_miou"]) == (0.31, 0.5)
    assert "| 31.00 % | 0.620 |" in table.render([row, example(seed=1, suite=None)])
    assert "| 70.00 % |" in table.render([row, example(seed=1, suite=None)])


def test_rows_of_two_processors_stay_apart(no_git):
    fast = example(student_accuracy=0.6)
    slow = example(seed=1, student_accuracy=0.5, commit="later", machine=fast["machine"] | {"cpu": "an older one"})
    text = table.render([fast, slow])
    assert "60.00 %" in text
    assert "50.00 %" in text


def test_the_tables_replace_the_text_between_the_two_comments_only(tmp_path, monkeypatch, no_git, capsys):
    document, rows = tmp_path / "runs.md", tmp_path / "results.jsonl"
    document.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for seed in (0, 1):
        results.append_result(rows, example(seed=seed))
    for _ in range(2):
        assert call(monkeypatch, table.main, "--results", rows, "--document", document) == 0
    text = document.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    assert text.count("| run |") == 1
    assert "| run |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no <!--"):
        table.put_between("no marks", "")
    assert table.put_between(table.RUNS.read_text(), "x")


def test_paths_are_recorded_as_placeholders_and_found_again(tmp_path):
    places = Places(tmp_path / "d", tmp_path / "t")
    for text in ("DATA/cifar10/test", "mnist:DATA", "TEACHERS/a.th", "timm:resnet18", "relative/path", "resnet20"):
        assert places.record(places.resolve(text)) == text
    assert places.resolve("mnist:DATA") == f"mnist:{tmp_path / 'd'}"
    with pytest.raises(SystemExit, match="below neither"):
        places.record("/somewhere/else")
    with pytest.raises(SystemExit, match="--data-root"):
        Places(None, None).resolve("DATA/cifar10/test")


def test_runs_of_a_suite_are_selected_by_recipe_teacher_and_name():
    given = run.parser().parse_args(["--suite", "teachers", "--recipe", "csd", "--teacher", "resnet56"])
    (chosen,) = run._experiments(given, Places(None, None))
    assert (chosen.recipe, chosen.teacher, chosen.suite) == ("csd", "resnet56", "teachers")
    given = run.parser().parse_args(["--suite", "ssd-ablation", "--name", "none"])
    chosen = run._experiments(given, Places(None, None))
    assert [(each.name, each.seed) for each in chosen] == [("none", 0), ("none", 1)]
    given = run.parser().parse_args(["--suite", "ssd-ablation", "--name", "none", "--seed", "5"])
    assert [each.seed for each in run._experiments(given, Places(None, None))] == [5], "once, not once per seed"
    with pytest.raises(SystemExit, match="no run of suite teachers has recipe nothing"):
        run._experiments(run.parser().parse_args(["--suite", "teachers", "--recipe", "nothing"]), Places(None, None))


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_is_made_of_different_runs_that_its_recipe_accepts(name):
    suite = load_suite(name)
    assert suite.about
    assert len({json.dumps(run.identity()) for run in suite.experiments}) == len(suite.experiments) > 0
    for experiment in suite.experiments:
        assert experiment.eval
        assert experiment.recipe == "unlabeled" or experiment.pool is None
        if experiment.recipe in shipped_recipes():
            load_recipe(experiment.recipe, list(experiment.overrides))


def test_the_ablation_has_every_row_that_was_asked_for():
    rows = load_suite("ssd-ablation").experiments
    assert {"none", "diversity", "difficulty", "default", "uniform draw"} <= {row.name for row in rows}
    sizes = [override for row in rows for override in row.overrides if "buffer.size" in override]
    assert sizes == [f"options.buffer.size={size}" for size in (500, 1000, 2500, 10000)]
    assert sum(row.seed == 1 for row in rows) == 3


def test_the_architecture_of_a_teacher_is_a_flag_or_in_its_file():
    archs = {name: arch_of(name) for name in TEACHERS}
    assert (archs["resnet56"], archs["lenet5"], archs["resnet34"]) == ("cifar_resnet56", "lenet5", None)


def test_a_trained_teacher_is_read_without_flags(monkeypatch, tmp_path, capsys):
    data = image_folder(tmp_path / "train", 10, (32, 32, 3))
    path = tmp_path / "teachers" / "own.pt"
    asked = ["--arch", "cifar_wrn_16_1", "--data", data, "--eval", data, "--out", path, "--device", "cpu"]
    asked += ["--epochs", 1, "--batch-size", 10, "--no-compile", "--precision", "fp32"]
    assert call(monkeypatch, train_teacher.main, *asked) == 0
    said = capsys.readouterr().out
    assert "epoch 1: loss" in said
    assert "accuracy" in said
    teacher = load_classifier(str(path))
    assert teacher.origin.arch == "cifar_wrn_16_1"
    assert teacher.spec == train_teacher.default_spec("cifar_wrn_16_1")
    assert len(teacher.norm_statistics) > 0


def test_training_lowers_the_loss_on_its_training_images(monkeypatch, tmp_path, capsys):
    data = image_folder(tmp_path / "train", 10, (32, 32, 3))
    for path in data.rglob("*.png"):
        Image.new("RGB", (32, 32), (25 * int(path.parent.name), 128, 250 - 25 * int(path.parent.name))).save(path)
    asked = ["--arch", "cifar_resnet8", "--data", data, "--out", tmp_path / "own.pt", "--device", "cpu"]
    asked += ["--epochs", 25, "--batch-size", 10, "--no-compile", "--precision", "fp32", "--lr", 0.05]
    assert call(monkeypatch, train_teacher.main, *asked) == 0
    losses = [float(loss) for loss in re.findall(r"epoch \d+: loss ([\d.]+)", capsys.readouterr().out)]
    assert len(losses) == 25
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_last_tenth_is_measured_from_its_beginning_to_the_end(monkeypatch, tmp_path, capsys):
    """The teacher is an untrained LeNet-5 that is added to those of teachers.yaml."""
    weights = tmp_path / "teachers" / "own.pt"
    weights.parent.mkdir()
    torch.save(timm.create_model("lenet5").state_dict(), weights)
    about = {"file": "TEACHERS/own.pt", "flags": ["--arch", "lenet5"], "student": "lenet5_half"}
    about["eval"] = str(image_folder(tmp_path / "data", 10, (28, 28)))
    monkeypatch.setitem(last_tenth.TEACHERS, "own", about)
    changes = [part for value in (*TINY, "train.steps=20") for part in ("--set", value)]
    roots = ["--data-root", tmp_path / "data", "--teachers-root", weights.parent]
    assert call(monkeypatch, last_tenth.main, "ssd", "own", *changes, *roots) == 0
    *points, verdict = capsys.readouterr().out.splitlines()
    assert [point.split(",")[0] for point in points] == ["step 18", "step 19", "step 20"]
    assert verdict.startswith("largest fall")


def test_the_largest_fall_may_take_several_points():
    assert last_tenth.largest_fall([0.5, 0.75, 0.7, 0.625, 0.8]) == 0.125
    assert last_tenth.largest_fall([0.5, 0.6]) == 0.0
