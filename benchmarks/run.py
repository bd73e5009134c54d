"""Runs `dfkd compress` and appends the result to benchmarks/results.jsonl.

One run:    python -m benchmarks.run --recipe ssd --teacher resnet20 --budget 15m
A suite:    python -m benchmarks.run --suite ssd-ablation
Selected:   python -m benchmarks.run --suite teachers --recipe csd --teacher resnet56
            python -m benchmarks.run --suite ssd-ablation --name none --seed 1

For a teacher in benchmarks/teachers.yaml, options, student and evaluation data are taken from there. A run with a row
for the current commit is skipped. `python -m benchmarks.table` renders all rows into benchmarks/notes/runs.md.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.experiment import SUITES, Experiment, changed, load_suite, with_teacher_defaults
from benchmarks.places import Places, add_arguments, places_of
from benchmarks.results import RESULTS, ROOT, append_result, is_present, make_row, measure_of, read_results
from dfkd_cli.errors import RecipeMismatchError

SELECTORS = ("recipe", "teacher", "name")  # of runs in a suite
TEACHER_FLAGS = ("--arch", "--num-classes", "--input-size", "--mean", "--std", "--output")
# The package of this checkout, not an installed one, because the row names this checkout's commit.
DFKD = (sys.executable, "-c", "from dfkd_cli.cli import main; main()")


def main() -> None:
    """Run the experiments of the command line; exit with 1 when one of them failed."""
    arguments = parser().parse_args()
    places = places_of(arguments)
    failed = 0
    for experiment in _experiments(arguments, places):
        title = experiment.name or ", ".join(experiment.overrides) or "defaults"
        described = f"{experiment.recipe} on {experiment.teacher}, seed {experiment.seed}: {title}"
        if not arguments.again and is_present(read_results(arguments.results), experiment):
            print(f"skipped, has a row: {described}", flush=True)
            continue
        print(f"running {described}", flush=True)
        code = run(experiment, places, arguments.results, arguments.out)
        if code == RecipeMismatchError.exit_code and experiment.suite:
            print(f"no row, the recipe does not fit the teacher: {described}", flush=True)
        elif code:
            failed += 1
            print(f"failed with exit code {code}: {described}", flush=True)
    sys.exit(1 if failed else 0)


def run(experiment: Experiment, places: Places, results: Path, out: Path) -> int:
    """Compress in a separate process, append the row and return the exit code of `dfkd`."""
    folder = out / _folder_name(experiment)
    words = [places.resolve(word) for word in experiment.arguments(str(folder.absolute()))]
    done = subprocess.run([*DFKD, *words, "--overwrite"], cwd=ROOT, stdout=subprocess.DEVNULL)
    if done.returncode == 0:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        row = make_row(experiment, report)
        append_result(results, row)
        score = row[f"student_{measure_of(row)}"]
        print("row appended" + ("" if score is None else f", {score:.2%}"), flush=True)
    return done.returncode


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=list(SUITES), help="run a suite of benchmarks/suites")
    parser.add_argument("--name", help="with --suite: only the runs of this name")
    parser.add_argument("--recipe", help="name or YAML file")
    parser.add_argument("--teacher", help="name in benchmarks/teachers.yaml, or a teacher for dfkd compress")
    parser.add_argument("--student")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--budget", help="for example 15m; replaces the budget of a suite")
    parser.add_argument("--eval", metavar="DIR")
    parser.add_argument("--pool", metavar="DIR")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides")
    for flag in TEACHER_FLAGS:
        parser.add_argument(flag)
    add_arguments(parser)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file for the rows")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmarks", help="folder for students and reports")
    parser.add_argument("--again", action="store_true", help="also run experiments with a row for this commit")
    return parser


def _experiments(arguments: argparse.Namespace, places: Places) -> list[Experiment]:
    if arguments.suite:
        given = [name for name in ("student", "eval", "pool", "overrides") if getattr(arguments, name)]
        if given:
            raise SystemExit(f"--{given[0]} is only for single runs; a suite contains it")
        wanted = {name: getattr(arguments, name) for name in SELECTORS if getattr(arguments, name)}
        chosen = [each for each in load_suite(arguments.suite).experiments if wanted.items() <= vars(each).items()]
        if not chosen:
            raise SystemExit(f"no run of suite {arguments.suite} has " + ", ".join(map(" ".join, wanted.items())))
        # Rows of several seeds become one run when --seed replaces all of them.
        return list(dict.fromkeys(changed(each, arguments.budget, arguments.seed) for each in chosen))
    if arguments.name:
        raise SystemExit("--name selects runs of a suite: give --suite too")
    if not arguments.recipe or not arguments.teacher:
        raise SystemExit("give --suite, or --recipe and --teacher")
    paths = {name: getattr(arguments, name) for name in ("recipe", "teacher", "eval", "pool")}
    values = {name: places.record(path) for name, path in paths.items() if path}
    values |= {"student": arguments.student} if arguments.student else {}
    values = with_teacher_defaults(values)
    if "student" not in values:
        raise SystemExit(f"--teacher {arguments.teacher} is not in benchmarks/teachers.yaml: give --student too")
    flags = [(flag, getattr(arguments, flag.strip("-").replace("-", "_"))) for flag in TEACHER_FLAGS]
    return [
        Experiment(
            **values,
            seed=arguments.seed or 0,
            budget=arguments.budget,
            overrides=tuple(arguments.overrides),
            teacher_flags=tuple(word for flag, value in flags if value is not None for word in (flag, value)),
        )
    ]


def _folder_name(experiment: Experiment) -> str:
    """Return a readable name that is the same for equal experiments."""
    words = [experiment.suite, experiment.recipe, experiment.teacher, experiment.student, experiment.name]
    words += [f"seed{experiment.seed}", experiment.budget, *experiment.overrides]
    text = "-".join(word for word in words if word)
    return "".join(letter if letter.isalnum() or letter in "-._=" else "_" for letter in text)[:150]


if __name__ == "__main__":
    main()
