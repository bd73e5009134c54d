"""The file of results: one JSON object per line and run. Rows are only appended."""

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
# Files that the benchmarks write do not make a checkout dirty.
_WRITTEN = (":!benchmarks/results.jsonl", ":!benchmarks/notes/runs.md")


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return all rows, oldest first; none without a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def append_result(path: Path, row: dict[str, Any]) -> None:
    """Append one row."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def make_row(experiment: Experiment, report: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a run from its `report.json`. It contains no path of this machine."""
    commit, dirty = checkout()
    command = shlex.join(["dfkd", *experiment.arguments("out/")])
    scores: dict[str, Any] = report["segmentation"] or {"student": None, "teacher": None, "relative_miou": None}
    return {
        "suite": experiment.suite,
        "name": experiment.name,
        **experiment.identity(),
        "student_accuracy": report["student"]["accuracy"],
        "teacher_accuracy": report["teacher"]["accuracy"],
        "relative_accuracy": report["relative_accuracy"],
        "student_miou": scores["student"] and scores["student"]["miou"],
        "teacher_miou": scores["teacher"] and scores["teacher"]["miou"],
        "relative_miou": scores["relative_miou"],
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


def measure_of(row: dict[str, Any]) -> str:
    """Return the end of the names of a row's main figures: "miou", or "accuracy" as in rows older than the mean IoU."""
    return "accuracy" if row.get("student_miou") is None else "miou"


def is_present(rows: list[dict[str, Any]], experiment: Experiment) -> bool:
    """Return whether there is a row of this experiment at the current commit, both without uncommitted changes."""
    commit, dirty = checkout()
    wanted = experiment.identity()
    return not dirty and any(
        row["commit"] == commit and not row["dirty"] and all(row[key] == value for key, value in wanted.items())
        for row in rows
    )


def checkout() -> tuple[str, bool]:
    """Return the current commit, and whether there are uncommitted changes."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".", *_WRITTEN))


def machine() -> dict[str, Any]:
    """Return the facts that times depend on: cores in use, processor, GPU, torch and Python versions."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    return {
        "cores": min(allowed, torch.get_num_threads()),  # OMP_NUM_THREADS can reduce it
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
