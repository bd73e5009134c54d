"""Recipe files: their values, the line of each value, and errors that name it. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dfkd_cli.config.values import Problem, did_you_mean
from dfkd_cli.errors import UsageError
from dfkd_cli.recipe.shipped import DEFAULTS, defaults_text, merge, shipped_recipes
from dfkd_cli.recipe.yaml_values import TAG, node_values, parse_nodes, reason

SECTIONS = ("about", "method", "train", "augmentation", "narrowing", "options", "segmentation")
SEGMENTATION = "segmentation"  # the section with values that replace others for segmentation networks
LONGEST = 80  # characters of a --set that an error repeats


@dataclass(frozen=True)
class About:
    """The description of a recipe; it has no effect on a run."""

    summary: str
    needs: tuple[str, ...]  # fields of `methods.Needs`
    use_when: str
    cost: str
    measured: str  # one accuracy, with networks, data, time and machine


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a recipe."""

    key: str  # dotted, "" for the file as a whole
    line: int | None  # None when the value comes from --set
    message: str  # begins with the file and line, or with the --set


class RecipeError(UsageError):
    """All mistakes of a recipe."""

    def __init__(self, mistakes: list[Mistake]):
        self.mistakes = mistakes
        super().__init__("; ".join(self.lines()))

    def lines(self) -> list[str]:
        """Return one line per mistake."""
        return [mistake.message for mistake in self.mistakes]


class RecipeFile:
    """The values that a recipe file (or `text`) holds, later also inherited ones and those of --set.

    Raises UsageError when the recipe does not exist and RecipeError when it is not a YAML mapping.
    """

    def __init__(self, name_or_path: str, text: str | None = None):
        self.name = name_or_path
        self.lines: dict[str, int] = {}  # dotted key -> line, from 1
        self.changes: dict[str, str] = {}  # dotted key -> the --set that changed it
        self.repeated: list[Problem] = []
        self.text = recipe_text(name_or_path) if text is None else text
        self.values = self._parse()

    def inherit(self, defaults: dict[str, Any], for_segmentation: bool) -> None:
        """Add the values of `defaults` that the file does not set.

        The section `segmentation` of both is applied or dropped.
        """
        own, inherited = dict(self.values), dict(defaults)
        special = [values.pop(SEGMENTATION, None) for values in (inherited, own)]
        for values, section in zip((inherited, own), special, strict=True):
            if not isinstance(section, dict | None):
                self.repeated.append(Problem(SEGMENTATION, f"'{SEGMENTATION}' is a value, not a section"))
            elif section is not None and for_segmentation:
                values |= merge(values, section)
        if for_segmentation:
            prefix = f"{SEGMENTATION}."
            own_lines = {key.removeprefix(prefix): line for key, line in self.lines.items() if key.startswith(prefix)}
            self.lines |= own_lines
        self.values = merge(inherited, own)

    def change(self, override: str) -> None:
        """Apply one `a.b=c`. Raises UsageError when its form is wrong, `a` is not a section or `c` is not a value."""
        dotted, equals, text = override.partition("=")
        flag = f"--set {override if len(override) <= LONGEST else override[: LONGEST - 3] + '...'}"
        if not equals or not dotted:
            raise UsageError(f"{flag}: write section.key=value, e.g. --set train.steps=4000")
        *path, last = dotted.split(".")
        if path[:1] == [SEGMENTATION]:
            raise UsageError(f"{flag}: set the value itself, without '{SEGMENTATION}.'")
        section = self.values
        for step in path:
            section = section.setdefault(step, {})
            if not isinstance(section, dict):
                raise UsageError(f"{flag}: '{step}' is a value, not a section")
        try:
            section[last] = node_values(parse_nodes(text))
        except (yaml.YAMLError, RecursionError) as error:
            raise UsageError(f"{flag}: {reason(error)}") from error
        self.changes[dotted] = flag

    def error(self, problems: list[Problem]) -> RecipeError:
        """Return an error with all problems, in the order of the file."""
        mistakes = [self._placed(problem) for problem in problems]
        return RecipeError(sorted(mistakes, key=lambda mistake: (mistake.line is None, mistake.line, mistake.key)))

    def _placed(self, problem: Problem) -> Mistake:
        for changed, override in self.changes.items():
            if changed.startswith(f"{problem.key}.") and problem.key not in self.lines:
                return Mistake(problem.key, None, f"{override}: {problem.text}")
        key = problem.key
        while key and key not in self.lines and key not in self.changes:
            key = key.rpartition(".")[0]  # a missing key gets the line of its section
        if key in self.changes:
            return Mistake(problem.key, None, f"{self.changes[key]}: {problem.text}")
        line = self.lines.get(key, 1)
        return Mistake(problem.key, line, f"{self.name}:{line}: {problem.text}")

    def _parse(self) -> dict[str, Any]:
        try:
            node = parse_nodes(self.text)
            if not isinstance(node, yaml.MappingNode):
                raise self._broken(1, f"a recipe is a mapping with the keys {', '.join(SECTIONS)}")
            # Before the values are made, because that adds the keys of `<<` to the section's own keys.
            self._note_lines(node, "", set())
            return node_values(node)
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            raise self._broken(mark.line + 1 if mark else 1, reason(error)) from error

    def _broken(self, line: int, text: str) -> RecipeError:
        return RecipeError([Mistake("", line, f"{self.name}:{line}: {text}")])

    def _note_lines(self, node: yaml.MappingNode, where: str, seen: set[int]) -> None:
        if id(node) in seen:  # an alias of a node above it
            return
        seen.add(id(node))
        for key, value in node.value:
            if key.tag == f"{TAG}merge":  # a key of the section itself may replace a merged one
                continue
            dotted, line = f"{where}{key.value}", key.start_mark.line + 1
            if dotted in self.lines:
                text = f"'{dotted}' appears twice, in lines {self.lines[dotted]} and {line}"
                self.repeated.append(Problem(dotted, text))
            self.lines[dotted] = line
            if isinstance(value, yaml.MappingNode):
                self._note_lines(value, f"{dotted}.", seen)


def inherited_values() -> dict[str, Any]:
    """Return the values that every recipe inherits."""
    return RecipeFile(f"{DEFAULTS}.yaml", defaults_text()).values


def recipe_text(name_or_path: str) -> str:
    """Return the YAML text of a shipped recipe or of a file. Raises UsageError when there is none."""
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path, known = Path(name_or_path), ", ".join(shipped)
    if name_or_path == DEFAULTS:
        raise UsageError(
            f"'{DEFAULTS}' is not a recipe: it holds the values that all recipes inherit; choose one of: {known} "
            f"(`dfkd recipes show {DEFAULTS}` prints the values)"
        )
    if path.suffix not in {".yaml", ".yml"} and not path.exists():
        hint = did_you_mean(name_or_path, shipped)
        raise UsageError(f"no recipe '{name_or_path}'{hint}; choose one of: {known}, or a YAML file")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"recipe {name_or_path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"recipe {name_or_path} is not a text file") from error
