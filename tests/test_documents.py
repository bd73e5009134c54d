"""README, CONTRIBUTING and docs/: every link, command, option, variable and recipe key in them exists."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from documents import (
    DOCUMENTS,
    ROOT,
    Block,
    anchors,
    blocks,
    check_command,
    commands,
    every_option,
    link_targets,
    spans,
)

from benchmarks.scaling_model import Inputs
from benchmarks.scaling_on_paper import TABLES
from dfkd_cli.cli.application import ParsingError, variable

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
PACKAGE = ROOT / "dfkd_cli"
VARIABLE_PATTERN = "DFKD_COMMAND_OPTION"  # how documents write the rule for all variables


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def recipe_keys() -> set[str]:
    """Return the dotted names of the values of the shipped recipes and of their defaults."""
    files = (ROOT / "recipes").glob("*.yaml")
    return {key for file in files for key in dotted(yaml.safe_load(text_of(file)))}


def dotted(values: dict, prefix: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        found.add(f"{prefix}{name}")
        found |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else set()
    return found


@each_document
def test_links_and_anchors_resolve(document):
    for target in link_targets(text_of(document)):
        path, _, anchor = target.partition("#")
        place = document.parent / path if path else document
        assert place.exists(), target
        assert not anchor or anchor in anchors(text_of(place)), target


@each_document
def test_commands_in_blocks_parse(document):
    for block in blocks(text_of(document)):
        for words in commands(block):
            check_command(words)


@each_document
def test_commands_and_options_in_the_text_exist(document):
    options = {*every_option(), "--help"}
    for span in spans(text_of(document)):
        if span.startswith("dfkd "):
            check_command(span.split(), complete=False)
        if re.match(r"--?[a-z]", span):
            assert re.split(r"[ =]", span)[0] in options, span


@each_document
def test_environment_variables_exist(document):
    known = {variable(*path, name.lstrip("-")) for name, paths in every_option().items() for path in paths}
    named = set(re.findall(r"\bDFKD_[A-Z_]+", text_of(document)))
    assert named - {VARIABLE_PATTERN} <= known


@each_document
def test_recipe_keys_exist(document):
    text = text_of(document)
    key = r"(?:train|augmentation|narrowing|options)\.[a-z][a-z_.]*[a-z]"
    named = {found for span in spans(text) for found in re.findall(rf"(?:^|[ =\"]){'(' + key + ')'}(?:=|$)", span)}
    named |= {found for block in blocks(text) for found in re.findall(rf"--set ({key})=", block.code)}
    assert named <= recipe_keys()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_tables_of_gpus_on_paper_are_those_of_the_script(table):
    assert table(Inputs()) in text_of(ROOT / "docs" / "scaling.md")


class TestTableOfPackages:
    """The table in docs/architecture.md, from low to high."""

    table = re.findall(r"^\| `(\w+)` \|", text_of(ROOT / "docs" / "architecture.md"), re.MULTILINE)

    def test_it_lists_every_package(self):
        packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
        assert sorted(self.table) == sorted(packages)

    def test_a_package_imports_only_packages_above_it(self):
        for place, package in enumerate(self.table):
            assert imported_packages(package) <= set(self.table[: place + 1]), package


def imported_packages(package: str) -> set[str]:
    """Return the packages of dfkd_cli that the modules of one of them import, anywhere in their code."""
    found = set()
    for path in (PACKAGE / package).rglob("*.py"):
        for node in ast.walk(ast.parse(text_of(path))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name.split(".")[1] for name in names if name.startswith("dfkd_cli.")}
    return {name for name in found if (PACKAGE / name).is_dir()}


class TestChecks:
    """The checks above find what they are for."""

    @pytest.mark.parametrize(
        "line",
        [
            "dfkd compres teacher.pt",
            "dfkd compress teacher.pt --studnet x",
            "dfkd compress teacher.pt --student x --progress bars",
            "dfkd evaluate --data images/",
            "dfkd plan teacher.pt --student x --resume out",
            "dfkd recipes show ssd csd",
            "cd x && dfkd check my.yaml > log --json=1",
        ],
    )
    def test_a_wrong_command_is_found(self, line):
        (words,) = commands(Block("sh", line))
        with pytest.raises((ParsingError, ValueError)):
            check_command(words)

    def test_variables_continued_lines_and_pipes_are_understood(self):
        code = 'F="--mean 0 --std 1"\nX=1 dfkd inspect a.pt \\\n  $F --json | tee x || dfkd check b.yaml  # dfkd c'
        assert commands(Block("bash", code)) == [
            ["dfkd", "inspect", "a.pt", "--mean", "0", "--std", "1", "--json"],
            ["dfkd", "check", "b.yaml"],
        ]

    def test_a_placeholder_stands_for_what_is_left_out(self):
        check_command(["dfkd", "compress", "teacher.pt", "...", "--recipe", "my.yaml"])
        with pytest.raises(ParsingError, match=r"[Mm]issing"):
            check_command(["dfkd", "compress", "--recipe", "my.yaml"])

    def test_links_and_anchors_are_read_as_github_does(self):
        text = '# A *b*: `c-d`\n## X\n## X\n[a](b.md#c) `[no](no)` ![i](p.png) [w](https://w) <img src="q.png">'
        assert anchors(text) == {"a-b-c-d", "x", "x-1"}
        assert link_targets(text) == ["b.md#c", "p.png", "q.png"]
