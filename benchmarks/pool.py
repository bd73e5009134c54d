"""How fast the pool of `unlabeled` is read, and whether its memory stays flat: `make bench-pool PICTURES=DIR`.

The pool is a folder of links to the pictures of DIR, repeated until there are enough files. Each size is read in a
process of its own, so that its peak memory is its own. Beside the pass itself stand its two limits, measured in the
same process on the same files: decoding alone, with the same threads, and the teacher alone, on images that are there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import torch

from benchmarks.throughput import SPEC
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.peak_memory import peak_memory_bytes
from dfkd_cli.machine.runtime import Runtime, choose_dtype
from dfkd_cli.pool.folder import image_files, read_pool
from dfkd_cli.pool.selection import Selection
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.students.student import build_student
from dfkd_cli.training.setting import Setting

CHUNKS_OF_LIMITS = 40  # of a batch: enough to measure by


def main() -> None:
    """Prints one line per size and the growth of the memory from the smallest to the largest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, help="folder of pictures to repeat")
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--keep", type=int, default=5_000, help="images chosen: at most the smallest number of files")
    parser.add_argument("--teacher", default="cifar_resnet20")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pool", type=Path, help=argparse.SUPPRESS)  # set for the process that reads one size
    arguments = parser.parse_args()
    if arguments.pool is not None:
        print(json.dumps(measure(arguments.pool, arguments.keep, arguments.teacher, arguments.device)))
        return
    peaks = []
    for count in arguments.files:
        with tempfile.TemporaryDirectory() as folder:
            make_pool(arguments.pictures, Path(folder), count)
            command = [sys.executable, "-m", "benchmarks.pool", *sys.argv[1:], "--pool", folder]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peaks.append(result["peak_mb"])
        print(describe(count, result), flush=True)
    print(f"peak memory grows by {max(peaks) - peaks[0]:.0f} MB from {arguments.files[0]:,} files on")


def make_pool(pictures: Path, folder: Path, count: int) -> None:
    """Fills `folder` with `count` links to the pictures, 1,000 to a sub-folder."""
    files = cycle([pictures.resolve() / name for name in image_files(pictures)])
    for number, file in enumerate(islice(files, count)):
        place = folder / f"{number // 1000:05}"
        place.mkdir(exist_ok=True)
        os.symlink(file, place / f"{number:07}{file.suffix}")


def measure(pool: Path, keep: int, teacher: str, device_name: str) -> dict[str, float]:
    """Images per second of the pass and of its two limits, and the peak memory of this process after the pass."""
    device = resolve_device(device_name)
    runtime = Runtime(device, choose_dtype("auto", device))
    recipe = load_recipe("unlabeled", [])
    classifier = runtime.place(build_student(teacher, SPEC)).eval().requires_grad_(False)
    setting = Setting(
        classifier,
        classifier,
        batch_size=recipe.train.batch_size,
        augmentation=recipe.augmentation,
        runtime=runtime,
        rng=torch.Generator(device).manual_seed(0),
    )
    selection = Selection(setting, replace(recipe.options.selection, keep=keep), pool)
    begun = time.perf_counter()
    while (selected := selection.advance(in_time=True)) is None:
        pass
    seconds = time.perf_counter() - begun
    result = {"pass": selected.seen / seconds, "peak_mb": peak_memory_bytes(torch.device("cpu")) / 1e6}
    return result | {"decoding": decoding_speed(pool, setting), "teacher": teacher_speed(setting)}


def decoding_speed(pool: Path, setting: Setting) -> float:
    """Images per second of the same reading with nothing done to them."""
    begun, count = time.perf_counter(), 0
    for chunk in islice(read_pool(pool, SPEC.size, setting.batch_size), CHUNKS_OF_LIMITS):
        count += len(chunk.files)
    return count / (time.perf_counter() - begun)


@torch.no_grad()
def teacher_speed(setting: Setting) -> float:
    """Images per second of the teacher on one batch again and again."""
    images = setting.runtime.images(torch.rand(setting.batch_size, *SPEC.size, device=setting.runtime.device))
    begun = time.perf_counter()
    with setting.runtime.autocast():
        for _ in range(CHUNKS_OF_LIMITS):
            confident = setting.teacher_features(images).logits.softmax(dim=1).amax()
    confident.item()  # waits for the device
    return CHUNKS_OF_LIMITS * len(images) / (time.perf_counter() - begun)


def describe(count: int, result: dict[str, float]) -> str:
    """One line: the speeds, and the pass as a share of decoding alone and of decoding and teacher in turns."""
    in_turns = 1.0 / (1.0 / result["decoding"] + 1.0 / result["teacher"])
    return (
        f"{count:>9,} files: pass {result['pass']:>7,.0f} images/s, decoding alone {result['decoding']:>7,.0f}, "
        f"teacher alone {result['teacher']:>7,.0f}; ratio to decoding {result['pass'] / result['decoding']:.3f}, "
        f"to both in turns on the same cores {result['pass'] / in_turns:.3f}; peak memory {result['peak_mb']:,.0f} MB"
    )


if __name__ == "__main__":
    main()
