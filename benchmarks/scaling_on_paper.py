"""The tables of docs/scaling.md, calculated and not measured: `python -m benchmarks.scaling_on_paper`.

`ssd` on 1, 8 and 64 GPUs; ImageNet, ResNet-50 to ResNet-18. The numbers are in `benchmarks/scaling_model.py`.
"""

import argparse
from collections.abc import Iterable
from dataclasses import fields, replace

from benchmarks.scaling_model import BATCH, STEPS, Case, Inputs

CASES = ((1, 1), (8, 1), (64, 1), (8, 8), (64, 64))  # GPUs, and how many times the batches and the buffer of the recipe
VARIED = (CASES[1], CASES[2], CASES[4])  # in the tables of what the assumptions and changes are worth
IMAGES = 100_000_000  # that a student learns from in a long run, 78 passes over ImageNet
FILTER_BYTES = 44_667_648  # that the orthogonalisation returns
LARGEST_FILTER_MACS = 5.10e9  # of its orthogonalisation


def main() -> None:
    """Print all tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("\n\n".join(make(Inputs()) for make in TABLES))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def inputs_table(inputs: Inputs) -> str:
    """Return the table of all inputs."""
    rows = [field.metadata for field in fields(inputs)]
    return table(
        ("input", "value", "is", "where it comes from"),
        ((row["meaning"], row["shown"], row["kind"], row["source"]) for row in rows),
    )


def step_table(inputs: Inputs) -> str:
    """Return the parts of a student step for every case."""
    rows = []
    for case in (Case(inputs, *numbers) for numbers in CASES):
        step = case.step
        parts = (step.networks, step.orthogonalisation, step.small, step.gradient, step.gpu, step.host, step.whole)
        limit = "GPU" if step.gpu > step.host else "host"
        rows.append((*batch(case), *map(milliseconds, parts), limit))
    head = ("GPUs", "images per step", "per GPU", "networks", "orthogonalisation", "small exchanges", "gradient")
    return table((*head, "GPU", "host", "step", "slower"), rows)


def run_table(inputs: Inputs) -> str:
    """Return speed, efficiency and hours for every case."""
    one, rows = Case(inputs, *CASES[0]), []
    for case in (Case(inputs, *numbers) for numbers in CASES):
        gain = case.images_per_s / one.images_per_s
        hours = (case.hours(STEPS), case.hours(IMAGES / (case.times * BATCH)))
        shown = (
            f"{case.images_per_s:,.0f}",
            f"{gain:.1f}",
            f"{100 * gain / case.gpus:.0f} %",
            *(f"{each:.2f}" for each in hours),
        )
        rows.append((*batch(case), *map(milliseconds, (case.round.whole, case.mean_step)), *shown))
    head = ("GPUs", "images per step", "per GPU", "round, ms", "mean step, ms", "images/s", "gain", "efficiency")
    return table((*head, f"{STEPS:,} steps, h", f"{IMAGES // 10**6} million images, h"), rows)


def sensitivity_table(inputs: Inputs) -> str:
    """Return the mean step with half and with double of every assumption."""
    assumptions = {
        "speed of the networks on a GPU": ("peak",),
        "speed of the orthogonalisation": ("float32",),
        "latency of a small exchange": ("latency_inside", "latency_between"),
        "bandwidth of the rings": ("bandwidth_inside", "bandwidth_between"),
        "time of the host per operation and message": ("launch", "hop"),
    }
    rows = [("as assumed", *(milliseconds(Case(inputs, *numbers).mean_step) for numbers in VARIED))]
    for name, names in assumptions.items():
        changed = [replace(inputs, **{each: factor * getattr(inputs, each) for each in names}) for factor in (0.5, 2.0)]
        cells = [[milliseconds(Case(each, *numbers).mean_step) for each in changed] for numbers in VARIED]
        rows.append((name, *map(" / ".join, cells)))
    return table(("mean step with half / double of", *map(title, VARIED)), rows)


def change_table(inputs: Inputs) -> str:
    """Return the mean step after changes of the code or of a value, one by one and all together."""
    changes: dict[str, dict[str, float]] = {
        "none": {},
        "each process orthogonalises some of the filters": {},
        "`train.sync_batchnorm=false`": {"step_exchanges": 1, "round_exchanges": 8},
        "gradient sent during the backward pass, at best": {"gradient_bytes": 0.0},
        "a third of the operations, by compilation or CUDA graphs": {
            "step_operations": inputs.step_operations / 3,
            "round_operations": inputs.round_operations / 3,
        },
        "the flag is exchanged at every tenth step only": {"hop": inputs.hop / 10},
    }
    rows = []
    for name, change in changes.items():
        shared = name.startswith("each process")
        cases = [
            Case(split(inputs, numbers[0]) if shared else replace(inputs, **change), *numbers) for numbers in VARIED
        ]
        rows.append((name, *(milliseconds(case.mean_step) for case in cases)))
    every = {key: value for change in changes.values() for key, value in change.items()}
    cases = [Case(split(replace(inputs, **every), numbers[0]), *numbers) for numbers in VARIED]
    rows.append(("all of them", *(milliseconds(case.mean_step) for case in cases)))
    return table(("change", *map(title, VARIED)), rows)


def split(inputs: Inputs, gpus: int) -> Inputs:
    """Return the inputs of a step in which whole filters are shared out, and the results gathered from a ring."""
    macs = max(inputs.muon_macs / gpus, LARGEST_FILTER_MACS)
    return replace(inputs, muon_macs=macs, gradient_bytes=inputs.gradient_bytes + FILTER_BYTES / 2)


def batch(case: Case) -> tuple[str, str, str]:
    """Return the number of GPUs, the images of a step and those of a GPU."""
    return f"{case.gpus}", f"{case.times * BATCH:,}", f"{case.times * BATCH // case.gpus}"


def title(numbers: tuple[int, int]) -> str:
    """Return the head of a column for one case."""
    gpus, times = numbers
    return f"{gpus} GPUs, {times * BATCH:,} images, ms"


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds."""
    return f"{1000 * seconds:.1f}"


TABLES = (inputs_table, step_table, run_table, sensitivity_table, change_table)

if __name__ == "__main__":
    main()
