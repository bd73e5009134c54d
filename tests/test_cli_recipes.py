"""`dfkd recipes`, `dfkd models` and `dfkd check`."""

import json
from dataclasses import fields

import pytest
from command_line import TINY_RUN, dfkd

from dfkd_cli.cli.completion import STUDENTS, complete_recipe, complete_student
from dfkd_cli.cli.recipes import NEEDS
from dfkd_cli.methods import METHODS
from dfkd_cli.models import REFERENCE_ARCHS
from dfkd_cli.recipe.listing import list_recipes
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.recipe.shipped import defaults_text, shipped_recipes
from dfkd_cli.students.models import list_students
from dfkd_cli.training.method import Needs

SIX_MISTAKES = """\
method: sdd
train:
  stepz: 100
  budget: null
  compile: offf
  init: teacher
  batch_size: 1
  optimizer: sgd
  lr: 1e-3
  muon_lr: 0.02
  muon_decay: 0.1
  adamw_lr: 1e-3
  momentum: 0.9
  weight_decay: 5e-4
  lr_warmup: 0.05
  average: 0.05
  round_every: 4
  report_every: many
augmentation:
  flip: yes
  shift: 0.125
  mix: 0.3
"""


def test_the_list_of_all_recipes_fits_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = dfkd("recipes")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) < 24  # a line is left for the prompt
    assert max(map(len, result.stdout.splitlines())) <= 80
    for entry in list_recipes().recipes:
        assert f"{entry.name:12}{entry.summary}" in result.stdout
        assert f"use it when {entry.use_when}" in result.stdout


def test_the_long_list_holds_the_whole_description(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = dfkd("recipes", "--long").stdout.splitlines()
    for entry in list_recipes().recipes:
        start = lines.index(next(line for line in lines if line.startswith(f"{entry.name} ")))
        described = [line.strip() for line in lines[start + 1 : start + 5]]
        needs = ", ".join(NEEDS[need] for need in entry.needs) or "any teacher"
        facts = [f"use it when {entry.use_when}", f"needs: {needs}", f"cost: {entry.cost}"]
        assert described == [*facts, f"measured: {entry.measured}"]


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_described_needs_are_those_of_the_method(name):
    (entry,) = [entry for entry in list_recipes().recipes if entry.name == name]
    needs = METHODS[entry.method].needs
    assert set(entry.needs) == {field.name for field in fields(Needs) if getattr(needs, field.name)}
    assert set(NEEDS) == {field.name for field in fields(Needs)}


def test_show_prints_the_file_and_with_resolved_every_value():
    assert dfkd("recipes", "show", "ssd").stdout == shipped_recipes()["ssd"]
    assert dfkd("recipes", "show", "defaults").stdout == defaults_text()
    resolved = dfkd("recipes", "show", "ssd", "--set", "train.lr=1e-3", "--resolved").stdout
    assert resolved == load_recipe("ssd", ["train.lr=0.001"]).to_yaml()


@pytest.mark.parametrize("words", [["check"], ["recipes", "show", "--resolved"], ["recipes", "copy", "my.yaml"]])
def test_the_inherited_values_are_not_a_recipe(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, rest = words[:2] if words[0] == "recipes" else words[:1], words[2:]
    result = dfkd(*command, "defaults", *rest)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: 'defaults' is not a recipe")
    assert not list(tmp_path.iterdir())


def test_the_description_of_a_recipe_is_not_part_of_its_hash(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(load_recipe("ssd", []).to_yaml())
    assert load_recipe(str(path), []).sha256() == load_recipe("ssd", []).sha256()


def test_copy_writes_a_recipe_that_checks_and_never_over_a_file(tmp_path):
    path = tmp_path / "my.yaml"
    assert dfkd("recipes", "copy", "ssd", path).exit_code == 0
    assert load_recipe(str(path), []) == load_recipe("ssd", [])
    path.write_text("mine")
    result = dfkd("recipes", "copy", "ssd", path)
    assert result.exit_code == 2
    assert "exists" in result.stderr
    assert path.read_text() == "mine"
    assert dfkd("recipes", "copy", "ssd", tmp_path / "nowhere" / "my.yaml").exit_code == 2


def test_all_six_mistakes_have_a_line_and_a_suggestion(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(SIX_MISTAKES + load_recipe("ssd", []).to_yaml().partition("mix: 0.3\n")[2])
    result = dfkd("check", path)
    assert result.exit_code == 2
    assert result.stdout == ""
    printed = result.stderr.splitlines()
    expected = [
        (1, "unknown method 'sdd'; did you mean 'ssd'?; choose one of: " + ", ".join(METHODS)),
        (3, "unknown key 'train.stepz'; did you mean 'steps'?"),
        (5, "'train.compile' is 'offf'; did you mean 'off'?; choose one of: auto, on, off"),
        (7, "train: batch_size is 1; it must be at least 2"),
        (18, "'train.report_every' is 'many'; it must be a whole number"),
        (20, "'augmentation.flip' is 'yes'; it must be true or false"),
    ]
    assert printed == [f"error: {path}:{line}: {text}" for line, text in expected]


def test_compress_makes_the_same_check(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(SIX_MISTAKES)
    checked = dfkd("check", path, "--json")
    started = dfkd("compress", "teacher.pt", "--student", "lenet5", "--out", tmp_path / "out", "--recipe", path)
    assert started.exit_code == checked.exit_code == 2
    assert started.stderr == checked.stderr
    keys = {mistake["key"] for mistake in json.loads(checked.stdout)["mistakes"]}
    assert {"method", "train.stepz", "train.compile", "options"} < keys
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: ssd\ntrain:\n  lr: 1\n  lr: 2\n", ":4: 'train.lr' appears twice, in lines 3 and 4"),
        ("method: [ssd]\n", ":1: unknown method '['ssd']'"),
        ("train: {}\n", ":1: missing key 'method'"),
        ("method: ssd\ntrain: 3\n", ":2: train must be a section with keys, not 3"),
        ("method: ssd\n\ttrain: 3\n", ":2: not YAML"),
        ("a: &a\n  b: *a\n", ":1: unknown key 'a'"),
        ("method: ssd\nextra: 1\n", ":2: unknown key 'extra'"),
        ("method: ssd\n", ":1: missing section 'options'"),
        ("train:\n  lr: 2020-99-99\n", ":2: 'train.lr' is '2020-99-99'; it must be a number"),
        ("train:\n  lr: !!int abc\n", ":2: 'abc' is not true, false or a number"),
        (f"train:\n  lr: {'1' * 5000}\n", f":2: '{'1' * 40}...' is not true, false or a number"),
        ("about:\n  needs: all\n", ":2: 'about.needs' is 'all'; it must be a list"),
    ],
)
def test_other_mistakes_have_their_line_too(tmp_path, text, message):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    result = dfkd("check", path)
    assert result.exit_code == 2
    assert f"error: {path}{message}" in result.stderr


def test_a_mistake_in_an_override_names_the_override():
    result = dfkd("check", "ssd", "--set", "train.lrr=1", "--set", "options.generator.width=0")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: --set options.generator.width=0: options.generator: width is 0; it must be at least 1",
        "error: --set train.lrr=1: unknown key 'train.lrr'; did you mean 'lr'?",
    ]


def test_a_good_recipe_checks():
    result = dfkd("check", "ssd", *TINY_RUN)
    assert result.exit_code == 0
    assert "no mistakes" in result.stdout


def test_models_lists_reference_networks_first_and_those_of_timm_by_pattern():
    everything = dfkd("models").stdout.splitlines()
    assert everything[0].startswith("--student 0.5 (default) is the teacher itself")
    listed = everything[everything.index("") + 1 : -1]
    assert [line.split()[0] for line in listed] == list(REFERENCE_ARCHS)
    assert "75,290" in listed[0]
    assert dfkd("models", "*net18_half").stdout.split()[0] == "cifar_resnet18_half"
    assert "resnet18d" in dfkd("models", "resnet18").stdout.splitlines()
    nothing = dfkd("models", "mobilnetv2_100")
    assert nothing.exit_code == 2
    assert "did you mean mobilenetv2_100" in nothing.stderr


def test_the_shell_completes_names_that_exist():
    assert complete_recipe("s") == [name for name in shipped_recipes() if name.startswith("s")]
    assert complete_student("cifar_resnet18") == ["cifar_resnet18", "cifar_resnet18_half"]
    known = list_students(None)
    assert set(REFERENCE_ARCHS) <= set(STUDENTS) <= {*REFERENCE_ARCHS, *known.timm}
