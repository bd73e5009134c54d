"""Speed and memory of the pass over a pool: `make bench-pool IMAGES=DIR`.

The pool is a folder of links to the images of DIR, repeated until there are enough files. A separate process reads
each size, so that its peak memory is that of this size. The same process measures the two limits of the pass: decoding
alone, with the same threads, and the teacher alone, on images in memory.
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
from dfkd_cli.data.reading import ImageReader
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.peak_memory import peak_memory_bytes
from dfkd_cli.machine.runtime import Runtime, choose_dtype
from dfkd_cli.pool.folder import image_files, read_pool
from dfkd_cli.pool.selection import Selection
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.students.student import build_student
from dfkd_cli.training.setting import Setting

CHUNKS_OF_LIMITS = 40  # batches for the measurement of a limit


def main() -> None:
    """Print one line per size, and the growth of the peak memory with the size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="folder of images to repeat")
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--keep", type=int, default=5_000, help="images to select; at most the smallest of --files")
    parser.add_argument("--teacher", default="cifar_resnet20")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pool", type=Path, help=argparse.SUPPRESS)  # given to the process that reads one size
    arguments = parser.parse_args()
    if arguments.pool is not None:
        print(json.dumps(measure(arguments.pool, arguments.keep, arguments.teacher, arguments.device)))
        return
    peaks = []
    for count in arguments.files:
        with tempfile.TemporaryDirectory() as folder:
            make_pool(arguments.images, Path(folder), count)
            command = [sys.executable, "-m", "benchmarks.pool", *sys.argv[1:], "--pool", folder]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peaks.append(result["peak_mb"])
        print(describe(count, result), flush=True)
    print(f"peak memory grows by {max(peaks) - peaks[0]:.0f} MB from {arguments.files[0]:,} files on")


def make_pool(images: Path, folder: Path, count: int) -> None:
    """Fill `folder` with `count` links to the images, 1,000 per sub-folder."""
    files = cycle([images.resolve() / name for name in image_files(images)])
    for number, file in enumerate(islice(files, count)):
        place = folder / f"{number // 1000:05}"
        place.mkdir(exist_ok=True)
        os.symlink(file, place / f"{number:07}{file.suffix}")


def measure(pool: Path, keep: int, teacher: str, device_name: str) -> dict[str, float]:
    """Return images per second of the pass and of its two limits, and the peak memory of this process in MB."""
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
    """Return images per second of decoding without the teacher."""
    begun, count = time.perf_counter(), 0
    for chunk in islice(read_pool(pool, SPEC, setting.batch_size, ImageReader()), CHUNKS_OF_LIMITS):
        count += len(chunk.files)
    return count / (time.perf_counter() - begun)


@torch.no_grad()
def teacher_speed(setting: Setting) -> float:
    """Return images per second of the teacher on one repeated batch."""
    images = setting.runtime.images(torch.rand(setting.batch_size, *SPEC.size, device=setting.runtime.device))
    begun = time.perf_counter()
    with setting.runtime.autocast():
        for _ in range(CHUNKS_OF_LIMITS):
            confident = setting.teacher_features(images).logits.softmax(dim=1).amax()
    confident.item()  # waits for the device
    return CHUNKS_OF_LIMITS * len(images) / (time.perf_counter() - begun)


def describe(count: int, result: dict[str, float]) -> str:
    """Return one line: the speeds, and the pass relative to decoding alone and to decoding plus teacher."""
    both = 1.0 / (1.0 / result["decoding"] + 1.0 / result["teacher"])
    return (
        f"{count:>9,} files: pass {result['pass']:>7,.0f} images/s, decoding alone {result['decoding']:>7,.0f}, "
        f"teacher alone {result['teacher']:>7,.0f}; ratio to decoding {result['pass'] / result['decoding']:.3f}, "
        f"to both one after the other {result['pass'] / both:.3f}; peak memory {result['peak_mb']:,.0f} MB"
    )


if __name__ == "__main__":
    main()
