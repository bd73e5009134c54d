"""Recipe files as written: where they lie, what they say and in which line. Without torch, so listing them is quick."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from dfkd_cli.config.values import Problem, did_you_mean
from dfkd_cli.errors import UsageError

SECTIONS = ("about", "method", "train", "augmentation", "options")
DEEPEST = 100  # levels of nesting: many times what a recipe has, and too few to end PyYAML's parser in C
LONGEST = 80  # characters of a --set that an error repeats
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class About:
    """What people should know before they choose a recipe; it changes nothing in a run."""

    summary: str
    needs: tuple[str, ...]  # fields of `methods.Needs`
    use_when: str
    cost: str
    measured: str  # accuracy and time, and on what


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a recipe."""

    key: str  # dotted, "" for the file as a whole
    line: int | None  # None when --set brought it
    message: str  # with the file and line, or the --set, in front


class RecipeError(UsageError):
    """A recipe with mistakes, all of them."""

    def __init__(self, mistakes: list[Mistake]):
        self.mistakes = mistakes
        super().__init__("; ".join(self.lines()))

    def lines(self) -> list[str]:
        """One line per mistake."""
        return [mistake.message for mistake in self.mistakes]


class RecipeFile:
    """The values of a recipe and where each one was written: in the file or in `text`, or in a later --set.

    Raises UsageError when there is no such recipe and RecipeError when it is not a YAML mapping.
    """

    def __init__(self, name_or_path: str, text: str | None = None):
        self.name = name_or_path
        self.lines: dict[str, int] = {}  # dotted key -> line, from 1
        self.changes: dict[str, str] = {}  # dotted key -> the --set that wrote it
        self.repeated: list[Problem] = []
        self.text = _read(name_or_path) if text is None else text
        self.values = self._parse()

    def change(self, override: str) -> None:
        """Puts one `a.b=c` in. Raises UsageError when it is not of that form, `a` is no section or `c` is no value."""
        dotted, equals, text = override.partition("=")
        flag = f"--set {override if len(override) <= LONGEST else override[: LONGEST - 3] + '...'}"
        if not equals or not dotted:
            raise UsageError(f"{flag}: write section.key=value, e.g. --set train.lr=0.05")
        *path, last = dotted.split(".")
        section = self.values
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UsageError(f"{flag}: '{part}' is a value, not a section")
        try:
            section[last] = _values(_tree(text))
        except (yaml.YAMLError, RecursionError) as error:
            raise UsageError(f"{flag}: {_reason(error)}") from error
        self.changes[dotted] = flag

    def error(self, problems: list[Problem]) -> RecipeError:
        """Everything that is wrong, in the order of the file."""
        mistakes = [self._placed(problem) for problem in problems]
        return RecipeError(sorted(mistakes, key=lambda mistake: (mistake.line is None, mistake.line, mistake.key)))

    def _placed(self, problem: Problem) -> Mistake:
        for changed, override in self.changes.items():
            if changed.startswith(f"{problem.key}.") and problem.key not in self.lines:
                return Mistake(problem.key, None, f"{override}: {problem.text}")
        key = problem.key
        while key and key not in self.lines and key not in self.changes:
            key = key.rpartition(".")[0]  # a missing key: its section's line
        if key in self.changes:
            return Mistake(problem.key, None, f"{self.changes[key]}: {problem.text}")
        line = self.lines.get(key, 1)
        return Mistake(problem.key, line, f"{self.name}:{line}: {problem.text}")

    def _parse(self) -> dict[str, Any]:
        try:
            node = _tree(self.text)
            if not isinstance(node, yaml.MappingNode):
                raise self._broken(1, f"a recipe is a mapping with the keys {', '.join(SECTIONS)}")
            # Before the values are made, which puts what `<<` names among a section's own keys.
            self._note_lines(node, "", set())
            return _values(node)
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            raise self._broken(mark.line + 1 if mark else 1, _reason(error)) from error

    def _broken(self, line: int, text: str) -> RecipeError:
        return RecipeError([Mistake("", line, f"{self.name}:{line}: {text}")])

    def _note_lines(self, node: yaml.MappingNode, where: str, seen: set[int]) -> None:
        if id(node) in seen:  # an alias of something above it
            return
        seen.add(id(node))
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":  # its values are defaults: a key of the section itself replaces one
                continue
            dotted, line = f"{where}{key.value}", key.start_mark.line + 1
            if dotted in self.lines:
                text = f"'{dotted}' is written twice, in lines {self.lines[dotted]} and {line}"
                self.repeated.append(Problem(dotted, text))
            self.lines[dotted] = line
            if isinstance(value, yaml.MappingNode):
                self._note_lines(value, f"{dotted}.", seen)


# The one in C, where PyYAML was built with it, is ten times faster.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """YAML 1.2's values, which are also JSON's: 1e-3 is a number, and `on` and 2020-01-01 are words."""


def _refusing(construct: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The constructor, whose failures tell the line, as all of YAML do."""

    def constructed(loader: Any, node: Any) -> Any:
        try:
            value = construct(loader, node)
            float(value)  # a whole number can be too large for one
            return value
        except (ValueError, OverflowError, LookupError) as error:
            text = loader.construct_scalar(node)
            shown = text if len(text) <= LONGEST // 2 else f"{text[: LONGEST // 2]}..."
            told = f"'{shown}' is neither true nor false nor a number that can be computed with"
            raise ConstructorError(None, None, told, node.start_mark) from error

    return constructed


_constructors = yaml.SafeLoader.yaml_constructors
_Loader.yaml_constructors = {
    **{tag: _constructors[tag] for tag in (None, *(_TAG + kind for kind in ("null", "str", "seq", "map")))},
    **{tag: _refusing(_constructors[tag]) for tag in (_TAG + kind for kind in ("bool", "int", "float"))},
}
_Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag not in (f"{_TAG}bool", f"{_TAG}timestamp")]
    for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    f"{_TAG}float", re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _tree(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, None when it is empty. Raises YAMLError."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(None, None, f"more than {DEEPEST} levels of nesting", event.start_mark)
    return yaml.compose(text, _Loader)


def _values(node: yaml.Node | None) -> Any:
    """What the nodes stand for; those with a `<<` change. Raises YAMLError."""
    return None if node is None else _Loader("").construct_document(node)


def _reason(error: Exception) -> str:
    told = getattr(error, "problem", None) or getattr(error, "context", None) or " ".join(str(error).split())
    return told if isinstance(error, ConstructorError) else f"not YAML: {told}"


def shipped_recipes() -> dict[str, str]:
    """Name -> YAML text of the recipes that come with dfkd."""
    folder = resources.files("dfkd_cli") / "recipes"
    if not folder.is_dir():  # a checkout: recipes/ lies beside the package
        folder = Path(__file__).parents[2] / "recipes"
    return {
        Path(entry.name).stem: entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yaml")
    }


def _read(name_or_path: str) -> str:
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"} and not path.exists():
        known = ", ".join(shipped)
        raise UsageError(f"no recipe '{name_or_path}'{did_you_mean(name_or_path, shipped)}; known: {known}, or a file")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"recipe {name_or_path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"recipe {name_or_path} is no text file") from error
