"""`--json`: one document on stdout that is valid by its schema, also after a failure. Options from the environment."""

import json
import os
import pty
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from command_line import INSTALLED, LOOK, TINY_RUN, dfkd, save_teacher
from forked_command import ForkedCommand
from jsonschema import Draft202012Validator
from PIL import Image

from dfkd_cli.cli.schema import DOCUMENTS, find_schema


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Return a folder with a teacher and labelled images."""
    root = tmp_path_factory.mktemp("json")
    save_teacher(root / "teacher.pt")
    for name in ("a", "b", "c"):
        (root / "data" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 100).save(root / "data" / name / "1.png")
    return root


def commands(root: Path) -> dict[str, list[object]]:
    run = [root / "teacher.pt", *LOOK, "--student", "cifar_resnet8", *TINY_RUN, "--progress", "text"]
    size = LOOK[:2]
    return {
        "benchmark": ["benchmark", root / "teacher.pt", *size, "--seconds", 0.01],
        "check": ["check", "ssd"],
        "compress": ["compress", *run, "--out", root / "out", "--overwrite"],
        "evaluate": ["evaluate", root / "teacher.pt", *LOOK, "--data", root / "data", "--teacher", root / "teacher.pt"],
        "export": [
            "export",
            root / "teacher.pt",
            *LOOK,
            "--to",
            "torchscript",
            "--out",
            root / "copy.pt",
            "--overwrite",
        ],
        "inspect": ["inspect", root / "teacher.pt", *LOOK],
        "models": ["models"],
        "plan": ["plan", *run],
        "recipes": ["recipes"],
        "recipes copy": ["recipes", "copy", "ssd", root / "copied.yaml"],
        "recipes show": ["recipes", "show", "ssd"],
    }


# Arguments with which each command fails.
MISTAKES: dict[str, list[object]] = {
    "benchmark": ["nowhere.pt"],
    "check": ["nowhere.yaml"],
    "compress": ["nowhere.pt", "--student", "lenet5", "--out", "out"],
    "evaluate": ["nowhere.pt"],
    "export": ["nowhere.pt", "--to", "torchscript"],
    "inspect": ["nowhere.pt"],
    "models": ["nowhere"],
    "plan": ["nowhere.pt", "--student", "lenet5", "--budget", "soon"],
    "recipes": ["--wrong"],
    "recipes copy": ["ssd", "/nowhere/my.yaml"],
    "recipes show": ["nowhere"],
}


def validated(command: str, text: str) -> dict[str, Any]:
    """Return the one document in `text`, after a check by the schema of the command."""
    document = json.loads(text)
    schema = find_schema(command)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(document)
    return document


def test_every_command_has_a_case():
    assert set(DOCUMENTS) == set(MISTAKES) == set(commands(Path()))


@pytest.mark.parametrize("command", DOCUMENTS)
def test_success_is_one_valid_document(files, command):
    result = dfkd(*commands(files)[command], "--json")
    assert result.exit_code == 0, result.stderr
    assert "error" not in validated(command, result.stdout)


@pytest.mark.parametrize("command", DOCUMENTS)
def test_failure_is_one_valid_document_too(files, command):
    result = dfkd(*command.split(), *MISTAKES[command], "--json")
    document = validated(command, result.stdout)
    assert document["error"]["exit_code"] == result.exit_code == 2
    assert result.stderr == f"error: {document['error']['message']}\n"


@pytest.mark.parametrize("command", DOCUMENTS)
def test_the_printed_schema_rejects_other_documents(command):
    schema = json.loads(dfkd("schema", *command.split()).stdout)
    assert schema == find_schema(command)
    assert not Draft202012Validator(schema).is_valid({})
    assert not Draft202012Validator(schema).is_valid({"error": {"message": "no code"}})


def test_schema_of_an_unknown_command_suggests_one():
    result = dfkd("schema", "evalute")
    assert result.exit_code == 2
    assert "did you mean 'evaluate'" in result.stderr


def test_a_missed_gate_keeps_what_was_measured(files):
    result = dfkd(*commands(files)["evaluate"], "--min-accuracy", 0.99, "--json")
    document = validated("evaluate", result.stdout)
    assert document["accuracy"] < 0.99
    assert document["error"]["exit_code"] == result.exit_code == 5


def test_a_bug_is_a_document_and_a_traceback(files, monkeypatch):
    monkeypatch.setattr("dfkd_cli.students.models.list_students", lambda *_: 1 // 0)
    result = dfkd("models", "--json")
    assert "ZeroDivisionError" in validated("models", result.stdout)["error"]["message"]
    assert "Traceback" in result.stderr
    assert result.exit_code == 1


def test_a_real_process_keeps_stdout_for_the_document(files):
    done = ForkedCommand(*commands(files)["compress"], "--json").wait()
    assert done.returncode == 0, done.stderr
    assert validated("compress", done.stdout) == json.loads((files / "out" / "report.json").read_text())
    assert "note: teacher" in done.stderr


def test_options_come_from_the_environment_and_flags_win(files, monkeypatch):
    monkeypatch.setenv("DFKD_RECIPES_SHOW_SET", "train.lr=1e-3 train.steps=7")
    monkeypatch.setenv("DFKD_RECIPES_SHOW_JSON", "1")
    shown = validated("recipes show", dfkd("recipes", "show", "ssd").stdout)
    assert (shown["values"]["train"]["lr"], shown["values"]["train"]["steps"]) == (0.001, 7)
    again = validated("recipes show", dfkd("recipes", "show", "ssd", "--set", "train.steps=8").stdout)
    assert again["values"]["train"]["steps"] == 8
    monkeypatch.setenv("DFKD_EVALUATE_DATA", str(files / "data"))
    monkeypatch.setenv("DFKD_EVALUATE_MEAN", "0.4")
    result = dfkd("evaluate", files / "teacher.pt", *LOOK[:2], *LOOK[4:])
    assert result.exit_code == 0, result.stderr
    monkeypatch.setenv("DFKD_EVALUATE_BATCH_SIZE", "none")
    assert dfkd("evaluate", files / "teacher.pt", *LOOK).exit_code == 2


@pytest.mark.parametrize("words", [["show", "ssd"], ["copy", "ssd", "copied.yaml"]])
def test_json_of_a_group_is_json_of_its_commands(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    validated(f"recipes {words[0]}", dfkd("recipes", "--json", *words).stdout)
    Path("copied.yaml").unlink(missing_ok=True)
    monkeypatch.setenv("DFKD_RECIPES_JSON", "1")
    validated(f"recipes {words[0]}", dfkd("recipes", *words).stdout)


def test_a_recipe_that_json_cannot_hold_is_a_failure_and_a_date_is_text(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("train: {lr: .nan}\n")
    result = dfkd("recipes", "show", path, "--json")
    assert validated("recipes show", result.stdout)["error"]["exit_code"] == result.exit_code == 2
    path.write_text("day: 2020-01-01\n")
    assert validated("recipes show", dfkd("recipes", "show", path, "--json").stdout)["values"] == {"day": "2020-01-01"}


def test_a_result_that_json_cannot_hold_is_a_bug_and_a_document(monkeypatch):
    monkeypatch.setattr("dfkd_cli.students.models.list_students", lambda *_: {"accuracy": float("nan")})
    result = dfkd("models", "--json")
    assert "a bug in dfkd: ValueError" in validated("models", result.stdout)["error"]["message"]


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("command", [["recipes"], ["recipes", "show", "ssd"]])
def test_output_that_cannot_be_written_ends_without_a_traceback(command, more):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed, open("/dev/full", "w") as full:
        done = [
            subprocess.run([INSTALLED, *command, *more], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
            for stdout in (closed, full)
        ]
    assert [(one.returncode, one.stderr) for one in done] == [
        (1, ""),
        (1, "error: cannot write: No space left on device\n"),
    ]


def test_quiet_prints_nothing_and_verbose_every_term(files):
    run = commands(files)["compress"]
    quiet = dfkd(*run, "-q")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    verbose = dfkd(*run, "-v").stderr
    assert "kd " in verbose
    assert len(verbose.splitlines()) > len(dfkd(*run).stderr.splitlines())
    silent = dfkd(*run, "--progress", "none")
    assert "note: " in silent.stderr
    assert "training" not in silent.stderr
    assert dfkd(*run, "-q", "-v").exit_code == 2


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_a_bar_and_no_color_is_honoured(files, environment, coloured):
    terminal, its_end = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    command = ForkedCommand(
        *commands(files)["compress"],
        "--progress",
        "auto",
        terminal=os.ttyname(its_end),
        environment=inherited | {"TERM": "xterm-256color"} | environment,
    )
    os.set_blocking(terminal, False)
    shown = bytearray()

    def read_to_the_end() -> bool:
        ended = command.returncode is not None
        with suppress(BlockingIOError):  # nothing more for now
            while chunk := os.read(terminal, 4096):
                shown.extend(chunk)
        return ended

    command.wait_until(read_to_the_end)
    os.close(its_end)
    os.close(terminal)
    assert command.returncode == 0, shown
    assert "100%" in shown.decode()
    assert bool(re.search(rb"\x1b\[[0-9;]*3[0-9]", shown)) == coloured
