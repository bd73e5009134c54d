"""Recipes: every shipped one loads, and an error names every mistake in one."""

from dataclasses import asdict

import pytest
import yaml

from dfkd_cli.errors import UsageError
from dfkd_cli.recipe.file import RecipeFile, inherited_values
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.recipe.shipped import defaults_text, merge, shipped_recipes


def test_there_are_recipes():
    assert "ssd" in shipped_recipes()


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_survives_writing_and_reading(name, tmp_path):
    recipe = load_recipe(name, [])
    path = tmp_path / "written.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(str(path), []) == recipe


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_value_of_a_shipped_recipe_is_explained(name):
    """Each line with a value that affects the run ends in a comment, or follows one."""
    lines = shipped_recipes()[name].partition("\nmethod:")[2].splitlines()[1:]
    lines += defaults_text().splitlines()
    bare = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if ":" in line and not line.strip().startswith("#") and line.split("#")[0].split(":")[1].strip()
        if "#" not in line and not before.strip().startswith("#")
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lrr=0.1", "unknown key 'train.lrr'; did you mean 'lr'?"),
        ("options.temprature=3", "did you mean 'temperature'?"),
        ("train.lr=fast", "'train.lr' is 'fast'; it must be a number"),
        ("train.steps=1.5", "'train.steps' is 1.5; it must be a whole number"),
        ("train.steps=0", "steps is 0; it must be at least 1"),
        ("augmentation.shift=3", "shift is 3.0; it must be at most 1"),
        ("augmentation.mix=5", "mix is 5.0; it must be at most 1"),
        ("train.lr_warmup=1.5", "lr_warmup is 1.5; it must be at most 1"),
        ("train.momentum=1.5", "momentum is 1.5; it must be at most 0.9999"),
        ("train.lr=0", "lr is 0.0; it must be at least 1e-08"),
        ("train.budget=-5", "budget is -5.0; it must be at least 1"),
        ("options.warmup.share=4", "options.warmup: share is 4.0; it must be at most 1"),
        ("options.generator.final_lr=7", "final_lr is 7.0; it must be at most 1"),
        ("options.inversion.weights.bn=-1", "bn is -1.0; it must be at least 0"),
        ("options.generator.batch_size=1", "options.generator: batch_size is 1"),
        ("options.temperature=0", "temperature is 0.0"),
        ("augmentation.mix=-1", "mix is -1.0"),
        ("options.priority=3", "it must be true or false"),
        ("options.buffer.eviction=newest", "choose one of: oldest, easiest, mastered"),
        ("options.generator=3", "must be a section"),
        ("method=sdd", "unknown method 'sdd'; did you mean 'ssd'?"),
        ("foo.bar=3", "--set foo.bar=3: unknown key 'foo'"),
        ("train.steps=", "'train.steps' is empty"),
        ("nonsense", "write section.key=value"),
        ("train.lr.x=3", "'lr' is a value, not a section"),
        ("train.lr=[", "--set train.lr=[: not YAML: did not find"),
        ("train.lr=2020-99-99", "'train.lr' is '2020-99-99'; it must be a number"),
        ("train.lr=!!int abc", "--set train.lr=!!int abc: 'abc' is not true, false or a number"),
        ("train.lr=!!int ''", "'' is not true"),
        ("train.init=!!bool abc", "'abc' is not true"),
        ("train.lr=!!timestamp 2020-99-99", "could not determine a constructor for the tag"),
        (f"train.steps={'1' * 400}", "111...' is not true, false or a number"),
        (f"train.steps={'1' * 5000}", "111...' is not true, false or a number"),
        (f"train.steps={'[' * 400}", "[[[...: not YAML: more than 100 levels of nesting"),
        (f"train.steps={'[' * 100_000}", "nesting"),  # which newer parsers refuse themselves
    ],
)
def test_a_mistake_is_one_line_that_names_it(override, message):
    with pytest.raises(UsageError) as caught:
        load_recipe("ssd", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_all_mistakes_are_named_at_once():
    with pytest.raises(UsageError) as caught:
        load_recipe("ssd", ["train.lrr=1", "options.gama=1", "train.steps=x"])
    assert all(part in str(caught.value) for part in ("lrr", "gama", "steps"))


def test_a_recipe_inherits_every_value_that_it_does_not_set(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: dafl\ntrain:\n  lr: 0.1\noptions: {temperature: 3}\n")
    with pytest.raises(UsageError, match=r"missing key 'options\.generator'"):
        load_recipe(str(path), [])
    options = yaml.safe_dump({"options": yaml.safe_load(shipped_recipes()["dafl"])["options"]})
    path.write_text(f"method: dafl\ntrain:\n  lr: 0.1\n{options}")
    defaults = yaml.safe_load(defaults_text())
    recipe = load_recipe(str(path), ["train.steps=7"])
    assert asdict(recipe.augmentation) == defaults["augmentation"]
    inherited = defaults["train"] | {"adamw_lr": 0.002, "weight_decay": 0.0005}  # which PyYAML alone reads as text
    assert asdict(recipe.train) == inherited | {"lr": 0.1, "steps": 7}


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_repeats_no_inherited_value(name):
    defaults, own = inherited_values(), RecipeFile(name).values
    assert [key for key in defaults for value in own.get(key, {}).items() if value in defaults[key].items()] == []


def test_merged_sections_keep_their_other_values_and_change_neither_side():
    defaults = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    values = {"a": {"c": {"f": 4}}, "e": {"g": 5}, "h": 6}
    assert merge(defaults, values) == {"a": {"b": 1, "c": {"d": 2, "f": 4}}, "e": {"g": 5}, "h": 6}
    assert merge({"a": {"b": 1}}, {"a": 2}) == {"a": 2}
    assert defaults == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert values == {"a": {"c": {"f": 4}}, "e": {"g": 5}, "h": 6}


def test_the_defaults_are_not_a_recipe():
    assert "defaults" not in shipped_recipes()
    with pytest.raises(UsageError, match=r"'defaults' is not a recipe.*choose one of: cgdd, ") as caught:
        load_recipe("defaults", [])
    assert "\n" not in str(caught.value)


def test_yaml_numbers_in_every_spelling_are_numbers():
    assert load_recipe("ssd", ["train.lr=1e-3"]).train.lr == 0.001
    assert load_recipe("ssd", ["train.steps=2_000"]).train.steps == 2000


@pytest.mark.parametrize("name", ["sdd", "missing.yaml", "."])
def test_an_unknown_recipe_is_a_usage_error(name):
    with pytest.raises(UsageError):
        load_recipe(name, [])


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "\x00", "[" * 100_000, "- " * 100_000])
def test_a_file_that_is_no_recipe_is_a_usage_error(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError):
        load_recipe(str(path), [])


def test_a_merge_key_brings_defaults_that_the_section_may_replace(tmp_path):
    path = tmp_path / "recipe.yaml"
    text = load_recipe("ssd", ["train.lr=0.2"]).to_yaml()
    path.write_text(text.replace("train:\n", "train:\n  <<: {lr: 0.1}\n"))
    assert load_recipe(str(path), []) == load_recipe("ssd", ["train.lr=0.2"])
