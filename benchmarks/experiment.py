"""Experiments, each of which is one run of `dfkd compress`, and suites of them in YAML files."""

import itertools
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
TEACHERS = yaml.safe_load((HERE / "teachers.yaml").read_text(encoding="utf-8"))
SUITES = {path.stem: path for path in sorted((HERE / "suites").glob("*.yaml"))}
_VARIED = ("recipe", "teacher", "student", "seed")  # a list under one of these keys stands for one run per entry


@dataclass(frozen=True)
class Experiment:
    """The arguments of one run, whose paths may have placeholders, with its suite and its name there."""

    recipe: str
    teacher: str  # a name in teachers.yaml, or a teacher for `dfkd compress`
    student: str
    seed: int = 0
    budget: str | None = None  # None: the recipe's own steps
    eval: str | None = None
    pool: str | None = None
    overrides: tuple[str, ...] = ()  # of --set
    teacher_flags: tuple[str, ...] = ()
    suite: str | None = None
    name: str | None = None

    def identity(self) -> dict[str, Any]:
        """Return the values that identify the experiment, as JSON types."""
        facts = asdict(self)
        del facts["suite"], facts["name"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}

    def arguments(self, out: str) -> list[str]:
        """Return the arguments of `dfkd` on the command line, with placeholders."""
        known = TEACHERS.get(self.teacher, {})
        words = ["compress", known.get("file", self.teacher), *known.get("flags", []), *self.teacher_flags]
        words += ["--recipe", self.recipe, "--student", self.student, "--seed", str(self.seed)]
        for flag, value in (("--budget", self.budget), ("--eval", self.eval), ("--pool", self.pool)):
            words += [] if value is None else [flag, value]
        for override in self.overrides:
            words += ["--set", override]
        return [*words, "--out", out]


@dataclass(frozen=True)
class Suite:
    """A list of experiments and its purpose."""

    about: str
    experiments: tuple[Experiment, ...] = field(default_factory=tuple)


def arch_of(teacher: str) -> str | None:
    """Return the architecture of a teacher in teachers.yaml; None when its file contains it."""
    flags = TEACHERS[teacher].get("flags", [])
    return flags[flags.index("--arch") + 1] if "--arch" in flags else None


def with_teacher_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values, with missing ones of student and evaluation data from the teacher in teachers.yaml."""
    known = TEACHERS.get(values["teacher"], {})
    return {key: known[key] for key in ("student", "eval") if key in known} | values


def load_suite(name: str) -> Suite:
    """Return the suite of this name. Raises SystemExit for a name without a file in benchmarks/suites."""
    if name not in SUITES:
        raise SystemExit(f"no suite '{name}'; known: {', '.join(SUITES)}")
    content = yaml.safe_load(SUITES[name].read_text(encoding="utf-8"))
    experiments = []
    for entry in content["runs"]:
        defaults = content.get("defaults", {})
        settings = {**defaults.get("set", {}), **entry.get("set", {})}
        experiments += _expand({**defaults, **entry, "set": settings, "suite": name})
    return Suite(content["about"].strip(), tuple(experiments))


def changed(experiment: Experiment, budget: str | None, seed: int | None) -> Experiment:
    """Return the experiment with the budget and the seed of the command line, if given."""
    experiment = experiment if budget is None else replace(experiment, budget=budget)
    return experiment if seed is None else replace(experiment, seed=seed)


def _expand(values: dict[str, Any]) -> list[Experiment]:
    """Return one experiment per combination of the lists in an entry."""
    overrides = tuple(f"{key}={_yaml(value)}" for key, value in values.pop("set", {}).items())
    lists = [values[key] if isinstance(values.get(key), list) else [values.get(key)] for key in _VARIED]
    experiments = []
    for combination in itertools.product(*lists):
        given = {key: value for key, value in zip(_VARIED, combination, strict=True) if value is not None}
        rest = {key: value for key, value in values.items() if key not in _VARIED}
        experiments.append(Experiment(**with_teacher_defaults(rest | given), overrides=overrides))
    return experiments


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
