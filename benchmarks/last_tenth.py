"""The student's accuracy over the last tenth of its training, in which some published recipes collapse.

python -m benchmarks.last_tenth curriculum resnet20 --set train.steps=2000

Real images are used only for these measurements, which do not influence the run.
"""

import argparse
from pathlib import Path

from benchmarks.experiment import TEACHERS, arch_of
from benchmarks.places import add_arguments, places_of
from dfkd_cli.compression.distillation import make_distillation
from dfkd_cli.compression.job import Job
from dfkd_cli.compression.load_job import load_job
from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.data.reading import ReadOptions
from dfkd_cli.data.segmented import MaskOptions
from dfkd_cli.evaluation.accuracy import measure_accuracy
from dfkd_cli.loading import LoadOptions
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.process import prepare_process
from dfkd_cli.training.clock import StepClock

FROM, POINTS = 0.9, 10  # share of the training, measurements after it


def main() -> None:
    """Print the accuracy at each point, and the largest fall between two of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("teacher", help="name of benchmarks/teachers.yaml")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides")
    parser.add_argument("--seed", type=int, default=0)
    add_arguments(parser)
    arguments = parser.parse_args()
    places, about = places_of(arguments), TEACHERS[arguments.teacher]
    job = Job(
        teacher=places.resolve(about["file"]),
        load=LoadOptions(arch=arch_of(arguments.teacher)),
        student=about["student"],
        recipe=arguments.recipe,
        overrides=tuple(arguments.overrides),
        out=Path("unused"),
        overwrite=False,
        seed=arguments.seed,
        device="auto",
        precision="auto",
        eval_data=places.resolve(about["eval"]),
        masks=MaskOptions(),
        pool=None,
        read_options=ReadOptions(),
        command="",
    )
    seen = accuracies(job)
    print(f"largest fall from one point to a later one: {100 * largest_fall(seen):.2f} points")


def accuracies(job: Job) -> list[float]:
    """Return the accuracy at the beginning of the last tenth and after each further hundredth."""
    prepare_process(resolve_device(job.device))
    loaded = load_job(job)
    assert isinstance(loaded.data, LabelledImages)
    clock, seen, last = StepClock(loaded.recipe.train.steps), [], -1
    distillation = make_distillation(loaded, clock, job.seed)

    def due() -> bool:
        return clock.progress(distillation.step) >= FROM + len(seen) * (1.0 - FROM) / POINTS

    for event in distillation.events(due):
        if event.step != last and (due() or event.progress == 1.0):
            last = event.step
            raw = measure_accuracy(loaded.student, loaded.data, loaded.runtime.device).accuracy
            with distillation.average.applied():
                seen.append(measure_accuracy(loaded.student, loaded.data, loaded.runtime.device).accuracy)
            print(f"step {last:,}, progress {event.progress:.3f}: {seen[-1]:.2%}, not averaged {raw:.2%}", flush=True)
    return seen


def largest_fall(values: list[float]) -> float:
    """Return the largest difference between a value and a later, smaller one; 0 when they only rise."""
    return max(earlier - later for place, earlier in enumerate(values) for later in values[place:])


if __name__ == "__main__":
    main()
