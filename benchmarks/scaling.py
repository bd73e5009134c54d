"""How the costs of `ssd` grow with images, pixels and classes: `python -m benchmarks.scaling`.

Times are seconds of the processor in one thread, so that other load on the machine changes them little.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks import throughput
from dfkd_cli.machine.runtime import Runtime

BASE = {"images": 32, "side": 32, "classes": 10}
CASES = [
    BASE,
    *(
        {**BASE, name: value}
        for name, values in (("images", (64, 128)), ("side", (64, 128)), ("classes", (100, 1000)))
        for value in values
    ),
]
REPEATS = 3


def main() -> None:
    """Print one row per size: seconds of a step and a round, and bytes of the buffer per image."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    print("| images | pixels | classes | step, s | round, s | buffer, bytes per image |\n|---|---|---|---|---|---|")
    for case in CASES:
        step, round_s, held = measured(**case)
        pixels = case["side"] ** 2
        print(
            f"| {case['images']} | {pixels:,} | {case['classes']:,} | {step:.3f} | {round_s:.3f} | {held:,} |",
            flush=True,
        )


def measured(images: int, side: int, classes: int) -> tuple[float, float, int]:
    """Return the processor's seconds of a student step and of a round, and the bytes of a stored image."""
    throughput.SPEC = replace(throughput.SPEC, size=(3, side, side), num_classes=classes)
    values = (f"train.batch_size={images}", f"options.generator.batch_size={images}", f"options.buffer.size={images}")
    loop = throughput.make_loop("cifar_resnet20", "cifar_resnet8", Runtime(torch.device("cpu")), values)
    source = loop.method.source
    step, round_s = seconds(lambda: loop.student_step(0.5)), seconds(lambda: loop.round(0.5))
    return step, round_s, source.memory.images[0].nbytes  # pyright: ignore[reportAttributeAccessIssue]


def seconds(work: Callable[[], object]) -> float:
    """Return the median of the processor's seconds."""
    work()
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return statistics.median(times)


if __name__ == "__main__":
    main()
