"""How the agreement that `dfkd evaluate` measures without data relates to accuracy, over the students of finished runs.

    python -m benchmarks.agreement out/benchmarks/narrowing-ablation-*

Each folder is the result of `dfkd compress --eval`, whose report has the accuracy. One row of a Markdown table is
printed per student, from the lowest accuracy to the highest, then the rank correlation of both figures.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import torch

from dfkd_cli import evaluate

COLUMNS = ("recipe", "teacher", "student", "steps", "agreement, synthetic", "agreement, real", "accuracy")


class Student(NamedTuple):
    """One row of the table."""

    recipe: str
    teacher_parameters: int
    parameters: int
    steps: int
    agreement: float  # with the teacher on the held-out synthetic images of its run
    real_agreement: float  # with the teacher on the labelled images
    accuracy: float


def main() -> None:
    """Evaluate all students without data, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="result of dfkd compress --eval")
    students = sorted((measure(folder) for folder in parser.parse_args().folders), key=lambda one: one.accuracy)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for one in students:
        figures = f"{one.agreement:.3f} | {one.real_agreement:.3f} | {100 * one.accuracy:.2f} %"
        print(f"| `{one.recipe}` | {one.teacher_parameters:,} | {one.parameters:,} | {one.steps:,} | {figures} |")
    if len(students) > 1:
        correlation = rank_correlation([one.agreement for one in students], [one.accuracy for one in students])
        print(f"rank correlation over {len(students)} students: {correlation:.3f}")


def measure(folder: Path) -> Student:
    """Return the figures of one student. Raises SystemExit for a run without `--eval` or without calibration images."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    agreement, accuracy = evaluate(folder).agreement, report["student"]["accuracy"]
    if agreement is None or accuracy is None:
        raise SystemExit(f"{folder} has no accuracy or no synthetic images: run dfkd compress with --eval")
    sizes = report["teacher"]["parameters"], report["student"]["parameters"]
    return Student(report["recipe"]["name"], *sizes, report["steps"], agreement, report["agreement"], accuracy)


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Return Spearman's coefficient, in [-1, 1]; equal values have their order."""
    ranks = torch.stack([torch.tensor(values).argsort().argsort().double() for values in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


if __name__ == "__main__":
    main()
