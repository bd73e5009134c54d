"""The documents of the project as data: code blocks, code spans, links, headings, and the commands that they show."""

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import typer
import yaml

from dfkd_cli.cli import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
PLACEHOLDER = "..."  # stands for arguments that a document leaves out
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_SHELL_LANGUAGES = ("", "sh", "bash")


class Block(NamedTuple):
    """A fenced code block."""

    language: str  # empty where the document names none
    code: str


def blocks(text: str) -> list[Block]:
    """Return the fenced code blocks of a document."""
    return [Block(*found.groups()) for found in _BLOCK.finditer(text)]


def spans(text: str) -> list[str]:
    """Return the code spans of a document, without those in fenced blocks, each on one line."""
    return [" ".join(span.split()) for span in _SPAN.findall(_BLOCK.sub("", text))]


def link_targets(text: str) -> list[str]:
    """Return the targets of links and images that are not addresses of the web."""
    prose = _SPAN.sub("", _BLOCK.sub("", text))
    found = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:src|href)="([^"]+)"', prose)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", _BLOCK.sub("", text), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", known) is not None for known in found)
        found.add(f"{name}-{count}" if count else name)
    return found


def commands(block: Block) -> list[list[str]]:
    """Return the words of every `dfkd` command in a block of shell code or in the `run` steps of a workflow."""
    if block.language == "yaml":
        jobs = yaml.safe_load(block.code).get("jobs", {}).values()
        code = "\n".join(step["run"] for job in jobs for step in job["steps"] if "run" in step)
    elif block.language in _SHELL_LANGUAGES:
        code = block.code
    else:
        return []
    return _dfkd_commands(code)


def _dfkd_commands(code: str) -> list[list[str]]:
    variables: dict[str, str] = {}
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        for words in _simple_commands(line):
            while words and (assignment := re.fullmatch(r"(\w+)=(.*)", words[0])):
                variables[assignment[1]] = assignment[2]
                words = words[1:]
            words = [part for word in words for part in _expanded(word, variables)]
            if words[:1] == ["dfkd"]:
                found.append(words)
    return found


def _simple_commands(line: str) -> list[list[str]]:
    """Split a line of shell code at its operators; redirections are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if set(word) <= set("<>"):
            next(words, None)
        elif set(word) <= set("|&;()"):
            found.append([])
        else:
            found[-1].append(word)
    return found


def _expanded(word: str, variables: dict[str, str]) -> list[str]:
    name = word.removeprefix("$")
    return shlex.split(variables[name]) if word.startswith("$") and name in variables else [word]


def check_command(words: list[str], complete: bool = True) -> None:
    """Parse a command line without running it; with `complete`, required arguments must be there.

    Raises typer's UsageError (`ParsingError`) or ValueError for what the command would refuse.
    """
    complete = complete and PLACEHOLDER not in words
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name=words[0])
    left = [word for word in words[1:] if word != PLACEHOLDER]
    while hasattr(command, "commands") and left and not left[0].startswith("-"):
        if left[0] not in command.commands:
            raise ValueError(f"no command {left[0]}")
        command = command.commands[left[0]]
        context = command.context_class(command, info_name=left.pop(0), parent=context)
    values, extra, _ = command.make_parser(context).parse_args(left)
    if extra:
        raise ValueError(f"unexpected arguments {extra}")
    for parameter in command.params:
        given = values.get(parameter.name) not in (None, [], ())
        # A callback acts, as that of --install-completion does, and --help prints.
        if parameter.callback is None and not parameter.is_eager and (given or complete):
            value, _ = parameter.consume_value(context, values)
            parameter.process_value(context, value)


def every_option() -> dict[str, list[tuple[str, ...]]]:
    """Return each option of the command line, with the commands that take it."""
    found: dict[str, list[tuple[str, ...]]] = {}
    _collect_options(typer.main.get_command(app), (), found)
    return found


def _collect_options(command: Any, path: tuple[str, ...], found: dict[str, list[tuple[str, ...]]]) -> None:
    for parameter in command.params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            if name.startswith("-"):
                found.setdefault(name, []).append(path)
    for name, inner in getattr(command, "commands", {}).items():
        _collect_options(inner, (*path, name), found)
