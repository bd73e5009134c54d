"""The identity of a run: a run can only be resumed with arguments that give the same identity."""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dfkd_cli.compression.job import Job, LoadedJob
from dfkd_cli.config.version import __version__
from dfkd_cli.errors import UsageError
from dfkd_cli.machine.files import write_atomically
from dfkd_cli.machine.runtime import Precision
from dfkd_cli.training.checkpoint import FORMAT

FILE = "run.json"
PRECISIONS: dict[torch.dtype, Precision] = {torch.float32: "fp32", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Identity:
    """Everything that determines the bits of the student, as plain values."""

    command: str  # the shell command that started the run
    facts: dict[str, Any]  # dotted name -> value; a resumed run must have the same
    environment: dict[str, Any]  # likewise; other values can change the last bits only

    def save(self, folder: Path) -> None:
        """Write the identity as `run.json`."""
        write_atomically(folder / FILE, json.dumps(asdict(self), indent=2).encode())

    def must_equal(self, earlier: "Identity") -> None:
        """Raise UsageError with all differences when the facts are not those of the earlier run."""
        found = differences(earlier.facts, self.facts)
        if found:
            raise UsageError(
                f"--resume: the unfinished run had other arguments: {'; '.join(found)}; "
                "give the same arguments, or --overwrite instead of --resume to start anew"
            )


def make_identity(job: Job, loaded: LoadedJob) -> Identity:
    """Return the identity of a loaded job."""
    teacher = loaded.teacher
    facts = {
        "checkpoint format": FORMAT,
        "teacher sha256": teacher.origin.sha256 or teacher.origin.source,
        # The class names may come from the evaluation data, which a resumed run need not have.
        "teacher": asdict(teacher.spec) | {"class_names": None},
        "student": job.student if loaded.plan is not None else loaded.student.origin.arch,
        "seed": job.seed,
        "pool": None if loaded.pool is None else str(loaded.pool.resolve()),
        "image files": asdict(loaded.read_options),
        "device": loaded.runtime.device.type,
        "precision": PRECISIONS[loaded.runtime.dtype],
        "compiled": loaded.runtime.compiles,
        "recipe": asdict(loaded.recipe),
    }
    environment = {
        "dfkd": __version__,
        "torch": str(torch.__version__),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": loaded.runtime.world.size,
    }
    return Identity(job.command, json.loads(json.dumps(_flat(facts))), environment)


def read_identity(folder: Path) -> Identity:
    """Return the identity that `save` wrote into the folder. Raises UsageError when it cannot be read."""
    try:
        return Identity(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{folder / FILE} cannot be read; start anew with --overwrite instead of --resume") from error


def differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return `name old -> new` for every value that differs or is in one of them only."""
    names = {**earlier, **now}
    return [
        f"{name} {_shown(earlier, name)} -> {_shown(now, name)}"
        for name in names
        if earlier.get(name) != now.get(name) or (name in earlier) != (name in now)
    ]


def _shown(values: dict[str, Any], name: str) -> str:
    return json.dumps(values[name]).strip('"') if name in values else "nothing"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
