"""What makes two runs the same run, so that one can go on where the other stopped."""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dfkd_cli import __version__
from dfkd_cli.compression.job import Job, Parts
from dfkd_cli.errors import UsageError
from dfkd_cli.machine.files import write_atomically
from dfkd_cli.machine.runtime import Precision
from dfkd_cli.training.checkpoint import FORMAT

FILE = "run.json"
PRECISIONS: dict[torch.dtype, Precision] = {torch.float32: "fp32", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Identity:
    """Everything that decides the student bit by bit, as plain values."""

    command: str  # that started the run
    facts: dict[str, Any]  # dotted name -> value; all must be the same in a resumed run
    environment: dict[str, Any]  # likewise, but a difference costs no more than the last bits

    def save(self, folder: Path) -> None:
        """Writes it as `run.json`."""
        write_atomically(folder / FILE, json.dumps(asdict(self), indent=2).encode())

    def must_equal(self, earlier: "Identity") -> None:
        """Raises UsageError, naming every difference, when this is not the earlier run again."""
        found = differences(earlier.facts, self.facts)
        if found:
            raise UsageError(
                f"--resume: the unfinished run was another one: {'; '.join(found)}; "
                "give the same arguments again, or --overwrite instead of --resume to start anew"
            )


def identity(job: Job, parts: Parts) -> Identity:
    """The identity of a loaded job."""
    teacher = parts.teacher
    facts = {
        "checkpoint format": FORMAT,
        "teacher sha256": teacher.origin.sha256 or teacher.origin.source,
        "teacher": asdict(teacher.spec),
        "student": parts.student.origin.arch,
        "seed": job.seed,
        "pool": None if parts.pool is None else str(parts.pool.resolve()),
        "device": parts.runtime.device.type,
        "precision": PRECISIONS[parts.runtime.dtype],
        "compiled": parts.runtime.compiles,
        "recipe": asdict(parts.recipe),
    }
    environment = {
        "dfkd": __version__,
        "torch": str(torch.__version__),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    return Identity(job.command, json.loads(json.dumps(_flat(facts))), environment)


def read_identity(folder: Path) -> Identity:
    """What `save` wrote into the folder. Raises UsageError when it cannot be read."""
    try:
        return Identity(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{folder / FILE} cannot be read; start anew with --overwrite instead of --resume") from error


def differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`name old -> new` for every value that is not the same in both."""
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
