"""What is measured on a GPU, in one file and at most 10 minutes, offline: `make bench-gpu`.

It needs `cifar10-test.tar.xz` and `teachers/resnet20-12fca82f.th` of the folder `--data`, 20 MB together. The file is
written after every part, so that a part that fails or takes too long leaves those before it. `--rehearse` runs all
parts with tiny sizes on any device and needs no data.
"""

import argparse
import json
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.throughput import SPEC, bare_round, bare_student_step, make_loop, measure, trainer_of
from dfkd_cli import compress
from dfkd_cli.compression.make_job import make_job
from dfkd_cli.compression.plan import forecast
from dfkd_cli.loading import LoadOptions
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.runtime import Runtime
from dfkd_cli.networks.modes import frozen
from dfkd_cli.students.student import build_student
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.event import Event
from dfkd_cli.training.optimizer import make_optimizer
from dfkd_cli.training.session import SilentListener

TINY = (
    "train.batch_size=4",
    "options.warmup.rounds=2",
    "options.buffer.size=8",
    "options.generator.batch_size=4",
    "options.generator.width=8",
)
FULL_MODES = (("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True))  # precision, compiled
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Sizes:
    """How long the parts are."""

    teacher: str
    student: str
    overrides: tuple[str, ...]  # of the recipe
    modes: tuple[tuple[str, bool], ...]
    rounds: int  # of 4 steps per side
    budget: str | None  # of the compression
    steps: int  # of the resumed run


FULL = Sizes("cifar_resnet20", "cifar_resnet8", (), FULL_MODES, 15, "3m", 300)
REHEARSAL = Sizes("cifar_resnet8", "lenet5_half", TINY, (("fp32", False),), 1, None, 4)


def main() -> None:
    """Measure everything and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/gpu.json"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = REHEARSAL if arguments.rehearse else FULL
        data = None if arguments.rehearse else arguments.data
        bench = Bench(sizes, resolve_device(arguments.device), Path(folder), arguments.out)
        bench.run(data)


class Bench:
    """The parts, and the file that grows with them."""

    def __init__(self, sizes: Sizes, device: torch.device, folder: Path, out: Path):
        self.sizes, self.device, self.folder, self.out = sizes, device, folder, out
        self.begun = time.monotonic()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self.results: dict[str, Any] = {"device": name, "torch": str(torch.__version__), "sizes": asdict(sizes)}

    def run(self, data: Path | None) -> None:
        """Measure all parts; without `data` with a teacher of random weights."""
        self.teacher, self.eval_data = self._teacher(data)
        for part in (self.throughput, self.bare_loops, self.plan, self.compression, self.resumption):
            self._measure(part)

    def _measure(self, part: Callable[[], Any]) -> None:
        begun = time.monotonic()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            found = part()
        except Exception as error:  # the other parts are worth having on a machine that is lent for minutes
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"}
        self.results[part.__name__] = {"seconds": round(time.monotonic() - begun, 1), "found": found}
        self.results["seconds"] = round(time.monotonic() - self.begun, 1)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(self.results, indent=2) + "\n", encoding="utf-8")
        print(f"{part.__name__}: {json.dumps(self.results[part.__name__])}", flush=True)

    def _teacher(self, data: Path | None) -> tuple[Path, str | None]:
        if data is None:
            torch.manual_seed(0)
            file = self.folder / "teacher.pt"
            torch.save(build_student(self.sizes.teacher, SPEC).network.get_submodule("module").state_dict(), file)
            return file, None
        with tarfile.open(data / "cifar10-test.tar.xz") as archive:
            archive.extractall(self.folder, filter="data")
        return data / "teachers" / "resnet20-12fca82f.th", str(self.folder / "cifar10" / "test")

    def throughput(self) -> list[dict[str, Any]]:
        """Return images per second of a student step and a round of dfkd, and of bare loops in the same mode."""
        found = []
        for precision, compiles in self.sizes.modes:
            loop = self._loop(precision, compiles)
            student = {"bare": bare_student_step(loop), "dfkd": lambda loop=loop: loop.student_step(0.5)}
            count = loop.config.batch_size
            row: dict[str, Any] = {"precision": precision, "compiled": compiles}
            row["student"] = measure(student, count, self.sizes.rounds, self.device)
            with frozen(loop.setting.student):
                rounds = {"bare": bare_round(loop), "dfkd": lambda loop=loop: loop.round(0.5)}
                config = trainer_of(loop).config
                row["synthesis"] = measure(rounds, config.batch_size * config.steps, self.sizes.rounds, self.device)
            found.append(row | {"notes": loop.setting.runtime.notes})
        return found

    def bare_loops(self) -> dict[str, Any]:
        """Return images per second of a bare student step: what memory format and CUDA graphs are worth."""
        precision = self.sizes.modes[-1][0]
        formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
        modes = [None, "default", "reduce-overhead"] if len(self.sizes.modes) > 1 else [None]
        found = {}
        for name, memory_format in formats.items():
            for mode in modes:
                loop = self._loop(precision, False)
                steps = {"bare": bare_step(loop, memory_format, mode)}
                speed = measure(steps, loop.config.batch_size, self.sizes.rounds, self.device)
                found[f"{name}, {mode or 'not compiled'}"] = speed["bare"]
        return found

    def _loop(self, precision: str, compiles: bool) -> Distillation:
        runtime = Runtime(self.device, TYPES[precision], compiles)
        return make_loop(self.sizes.teacher, self.sizes.student, runtime, self.sizes.overrides)

    def plan(self) -> dict[str, Any]:
        """Return the forecast of the compression."""
        arguments = {**self._arguments(), "load": LoadOptions(arch=self.sizes.teacher, input_size=(3, 32, 32))}
        del arguments["arch"], arguments["input_size"]
        foreseen = asdict(forecast(make_job(**arguments, out=self.folder / "planned"), print))
        return {name: foreseen[name] for name in ("steps", "seconds", "step_s", "round_s", "peak_bytes", "precision")}

    def compression(self) -> dict[str, Any]:
        """Return accuracy, times and peak memory of a compression."""
        report = compress(**self._arguments(), out=self.folder / "student")
        assert report is not None
        return {"student": asdict(report.student), "time": asdict(report.time), "memory": asdict(report.memory)}

    def resumption(self) -> dict[str, Any]:
        """Return whether a run that was stopped and resumed ends with the student of an uninterrupted one."""
        arguments = self._arguments() | {"budget": None, "eval_data": None, "calibration": False}
        arguments["settings"] = [*self.sizes.overrides, f"train.steps={self.sizes.steps}", "train.report_every=1"]
        every, whole, out = str(self.sizes.steps // 4), self.folder / "whole", self.folder / "stopped"
        compress(**arguments, out=whole)
        try:
            compress(**arguments, out=out, checkpoint_every=every, listener=_Stopping(self.sizes.steps // 2))
        except KeyboardInterrupt:
            return {"failed": "stopped before the first checkpoint"}
        except Exception as error:
            message = str(error)
        else:
            return {"failed": "not stopped"}
        compress(**arguments, out=out, resume=True)
        files = [(folder / "student.safetensors").read_bytes() for folder in (whole, out)]
        return {"stopped": message.split(";")[0], "equal": files[0] == files[1]}

    def _arguments(self) -> dict[str, Any]:
        return {
            "teacher": self.teacher,
            "arch": self.sizes.teacher,
            "input_size": (3, 32, 32),
            "student": self.sizes.student,
            "recipe": "ssd",
            "budget": self.sizes.budget,
            "settings": [*self.sizes.overrides, *([] if self.sizes.budget else [f"train.steps={self.sizes.steps}"])],
            "eval_data": self.eval_data,
            "pool": None,
            "seed": 0,
            "device": str(self.device),
            "precision": "auto",
        }


class _Stopping(SilentListener):
    """Stops a run after a step, as Ctrl-C does."""

    def __init__(self, step: int):
        self.step = step

    def event(self, event: Event) -> None:
        if event.step >= self.step:
            raise KeyboardInterrupt


def bare_step(loop: Distillation, memory_format: torch.memory_format, mode: str | None) -> Callable[[], object]:
    """Return a step of the student on one constant batch, in a memory format and a mode of torch.compile."""
    setting, config = loop.setting, loop.config
    place: Any = {"memory_format": memory_format}
    teacher, student = setting.teacher.to(**place), setting.student.to(**place)
    images = torch.rand(config.batch_size, *SPEC.size, device=setting.runtime.device).contiguous(**place)
    optimizer = make_optimizer(student, "sgd", config)

    def loss(images: torch.Tensor) -> torch.Tensor:
        with setting.runtime.autocast():
            with torch.no_grad():
                target = teacher(images)
            return losses.kl_div(student(images), target, 4.0).mean()

    computed = loss if mode is None else torch.compile(loss, mode=mode, dynamic=False)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        computed(images).backward()
        optimizer.step()

    student.train()
    return step


if __name__ == "__main__":
    main()
