"""The size of each form of the BatchNorm term on real images and on noise, for several teachers.

python -m benchmarks.batchnorm_scale --data-root DATA --teachers-root TEACHERS resnet20 resnet56

A form whose size differs between teachers needs a different weight for each of them. Real images are used here only to
choose a default, and by no recipe.
"""

import argparse

import torch

from benchmarks.experiment import TEACHERS, arch_of
from benchmarks.places import Places, add_arguments, places_of
from dfkd_cli.data.datasets import open_dataset
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.synthesis.batchnorm import DISTANCES, batchnorm_loss

BATCH = 128


def main() -> None:
    """Print one line per teacher: the size of every form on a batch of real images and on uniform noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", nargs="+", help="names of benchmarks/teachers.yaml")
    add_arguments(parser)
    arguments = parser.parse_args()
    print("| teacher |" + "".join(f" {form}: images / noise |" for form in DISTANCES))
    print("|---|" + "---|" * len(DISTANCES))
    for name in arguments.teachers:
        print(f"| {name} | " + " | ".join(sizes(name, places_of(arguments))) + " |", flush=True)


def sizes(name: str, places: Places) -> list[str]:
    """Return `images / noise` for every form."""
    about = TEACHERS[name]
    teacher = load_classifier(places.resolve(about["file"]), LoadOptions(arch=arch_of(name)))
    data = open_dataset(places.resolve(about["eval"]), teacher.spec)
    every = len(data) // BATCH  # folders are sorted by class
    real = torch.cat([images for images, _ in data.batches(500)])[: BATCH * every : every]
    noise = torch.rand(BATCH, *teacher.spec.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = [teacher.observe(images).norm_inputs for images in (real, noise)]
        statistics = teacher.norm_statistics
        return [" / ".join(f"{batchnorm_loss(inputs, statistics, form):.3g}" for inputs in seen) for form in DISTANCES]


if __name__ == "__main__":
    main()
