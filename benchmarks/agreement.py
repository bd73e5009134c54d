"""How the agreement that `dfkd evaluate` measures without data relates to accuracy, over 24 students of one teacher.

    python -m benchmarks.agreement TEACHERS/resnet20-12fca82f.th --arch cifar_resnet20 --data DATA/cifar10/test

Shares of the parameters, recipes and numbers of steps vary. One row of a Markdown table is printed per student, then
the rank correlation of both figures over all students, and over those of `ssd` only.
"""

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from dfkd_cli import compress, evaluate

RECIPES = {"ssd": (0.75, 0.5, 0.35, 0.25), "dafl": (0.5, 0.25), "csd": (0.5, 0.25)}
STEPS = (10, 60, 180)
ROUNDS = 30  # of images before the first step


class Student(NamedTuple):
    """One row of the table."""

    recipe: str
    share: float
    steps: int
    agreement: float  # with the teacher on held-out synthetic images
    real_agreement: float  # with the teacher on the labelled images
    accuracy: float


def main() -> None:
    """Train and evaluate all students, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--arch")
    parser.add_argument("--data", required=True, help="labelled images")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| recipe | share | steps | agreement, synthetic | agreement, real | accuracy |\n|---|---|---|---|---|---|")
    students = []
    for recipe, shares in RECIPES.items():
        for share, steps in itertools.product(shares, STEPS):
            student = measure(arguments, recipe, share, steps)
            students.append(student)
            figures = f"{student.agreement:.3f} | {student.real_agreement:.3f} | {student.accuracy:.4f}"
            print(f"| `{recipe}` | {share} | {steps} | {figures} |", flush=True)
    for name, chosen in (("all", students), ("ssd", [one for one in students if one.recipe == "ssd"])):
        pairs = [one.agreement for one in chosen], [one.accuracy for one in chosen]
        print(f"rank correlation over {len(chosen)} students ({name}): {rank_correlation(*pairs):.3f}")


def measure(arguments: argparse.Namespace, recipe: str, share: float, steps: int) -> Student:
    """Train one student and return its figures."""
    settings = {"train.steps": steps, "train.compile": "off"}
    if recipe != "dafl":
        settings["options.warmup.rounds"] = ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "student"
        compress(
            arguments.teacher,
            arch=arguments.arch,
            student=share,
            recipe=recipe,
            settings=settings,
            seed=arguments.seed,
            out=out,
        )
        synthetic = evaluate(out)
        real = evaluate(out, arguments.data, teacher=arguments.teacher, teacher_arch=arguments.arch)
    figures = [value for value in (synthetic.agreement, real.agreement, real.accuracy) if value is not None]
    return Student(recipe, share, steps, *figures)


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Return Spearman's coefficient, in [-1, 1]; equal values have their order."""
    ranks = torch.stack([torch.tensor(values).argsort().argsort().double() for values in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


if __name__ == "__main__":
    main()
