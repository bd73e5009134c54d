"""The file of results: one JSON object per line and run, appended and never rewritten."""

import datetime
import json
import os
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiment import Experiment

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results.jsonl"
# What benchmarks themselves write does not make a checkout dirty.
_WRITTEN = (":!benchmarks/results.jsonl", ":!benchmarks/README.md")


def read_results(path: Path) -> list[dict[str, Any]]:
    """All rows, oldest first; none when there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def append_result(path: Path, row: dict[str, Any]) -> None:
    """Adds one line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def make_row(experiment: Experiment, report: dict[str, Any]) -> dict[str, Any]:
    """A row from a run's `report.json`. Nothing in it depends on where this machine keeps its files."""
    commit, dirty = checkout()
    command = shlex.join(["dfkd", *experiment.arguments("out/")])
    return {
        "suite": experiment.suite,
        "name": experiment.name,
        **experiment.identity(),
        "student_accuracy": report["student"]["accuracy"],
        "teacher_accuracy": report["teacher"]["accuracy"],
        "relative_accuracy": report["relative_accuracy"],
        "agreement": report["agreement"],
        "agreement_on": report["agreement_on"],
        "student_parameters": report["student"]["parameters"],
        "teacher_parameters": report["teacher"]["parameters"],
        "images_generated": report["images"]["generated"],
        "images_kept": report["images"]["kept"],
        "steps": report["steps"],
        **report["time"],
        "peak_bytes": report["memory"]["peak_bytes"],
        "recipe_sha256": report["recipe"]["sha256"],
        "command": command,
        "commit": commit,
        "dirty": dirty,
        "machine": machine() | {"device": report["device"], "precision": report["precision"]},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def is_present(rows: list[dict[str, Any]], experiment: Experiment) -> bool:
    """Whether a row holds this experiment at the commit checked out; never when either has uncommitted changes."""
    commit, dirty = checkout()
    wanted = experiment.identity()
    return not dirty and any(
        row["commit"] == commit and not row["dirty"] and all(row[key] == value for key, value in wanted.items())
        for row in rows
    )


def checkout() -> tuple[str, bool]:
    """The commit checked out, and whether files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".", *_WRITTEN))


def machine() -> dict[str, Any]:
    """What a figure of time depends on: cores this process may use and does, processor and torch version."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    return {
        "cores": min(allowed, torch.get_num_threads()),  # OMP_NUM_THREADS takes fewer
        "cpu": _cpu_model(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
