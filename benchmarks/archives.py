"""Speed of a teacher from each kind of archive, compared with the same network in Python.

python -m benchmarks.archives

Measures the two computations that a run needs from a teacher: forwards without gradients, and the BatchNorm loss with
its gradient, each eager and compiled. All forms run in turns in one process.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.throughput import SPEC
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.machine.allocator import keep_freed_memory
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.runtime import Runtime, choose_dtype
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.students.student import build_student
from dfkd_cli.synthesis.batchnorm import batchnorm_loss

REPEATED = 3  # calls per turn


def main() -> None:
    """Print one line per form: milliseconds of a forward and of a loss with its gradient, eager and compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="cifar_resnet20")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    keep_freed_memory()
    device = resolve_device(arguments.device)
    runtime = Runtime(device, choose_dtype(arguments.precision, device), compiles=True)
    print(f"{device}, {runtime.dtype}, batches of {arguments.batch_size}, torch {torch.__version__}")
    images = runtime.images(torch.rand(arguments.batch_size, *SPEC.size, device=device))
    tasks: dict[str, list[Callable[[], object]]] = {}
    for form, teacher in forms(arguments.teacher).items():
        tasks[form] = _tasks(runtime.place(teacher).requires_grad_(False), images, runtime, lambda function: function)
    for form, teacher in forms(arguments.teacher).items():
        reason = runtime.place(teacher).requires_grad_(False).network.make_compilable(arguments.batch_size)
        if reason is not None:
            print(f"{form}: not compiled, {reason}")
        tasks[form] += _tasks(teacher, images, runtime, runtime.compile)
    milliseconds = _in_turns(tasks, arguments.rounds, device)
    for form, (forward, loss, compiled_forward, compiled_loss) in milliseconds.items():
        print(
            f"{form:<9} forward {forward:>5.0f} ms, compiled {compiled_forward:>5.0f}; "
            f"loss and gradient {loss:>5.0f} ms, compiled {compiled_loss:>5.0f}"
        )


def forms(name: str) -> dict[str, Classifier]:
    """Return the same network in Python and from every kind of archive."""
    with tempfile.TemporaryDirectory() as folder:
        return _forms(name, Path(folder))


def _forms(name: str, folder: Path) -> dict[str, Classifier]:
    teacher = build_student(name, SPEC).eval()
    module: Any = teacher.network.module
    example = torch.rand(2, *SPEC.size)
    batch = {0: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(module, example), folder / "traced.pt")
        torch.jit.save(torch.jit.script(module), folder / "scripted.pt")
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=(batch,)), folder / "exported.pt2")
    flags = LoadOptions(input_size=SPEC.size, mean=SPEC.mean, std=SPEC.std)
    archives = {path.stem: load_classifier(str(path), flags) for path in sorted(folder.iterdir())}
    return {"eager": teacher, **archives}


def _tasks(teacher: Classifier, images: torch.Tensor, runtime: Runtime, prepare: Callable) -> list[Callable]:
    def distance(inputs: torch.Tensor) -> torch.Tensor:
        return batchnorm_loss(teacher.observe(inputs).norm_inputs, teacher.norm_statistics, "norm")

    forward, loss = prepare(teacher), prepare(distance)
    inputs = images.clone().requires_grad_(True)

    def predict() -> None:
        with runtime.autocast(), torch.no_grad():
            forward(images)

    def invert() -> None:
        with runtime.autocast():
            value = loss(inputs)
        value.backward()

    return [predict, invert]


def _in_turns(
    tasks: dict[str, list[Callable[[], object]]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Return the median milliseconds of each task over `rounds` turns, after one turn that compiles."""
    times = {form: [[] for _ in each] for form, each in tasks.items()}
    for _ in range(rounds + 1):
        for form, each in tasks.items():
            for place, task in enumerate(each):
                begun = time.perf_counter()
                for _ in range(REPEATED):
                    task()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times[form][place].append(1000 * (time.perf_counter() - begun) / REPEATED)
    return {form: [statistics.median(seen[1:]) for seen in each] for form, each in times.items()}


if __name__ == "__main__":
    main()
