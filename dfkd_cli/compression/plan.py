"""Forecast a compression: sizes, time and memory, from some measured steps. Writes nothing."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from dfkd_cli.compression.budget import TRIED_IMAGES, Seconds, reckon, time_teacher_pass
from dfkd_cli.compression.job import Job
from dfkd_cli.compression.load_job import load_job
from dfkd_cli.compression.pace import measure_pace
from dfkd_cli.errors import UsageError
from dfkd_cli.evaluation.benchmark import latency_ms
from dfkd_cli.loading.weights_file import file_bytes
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.cost import macs_per_image, weight_bytes
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.networks.tasks import TaskName
from dfkd_cli.training.config import TrainConfig

FEW_STEPS = 100  # below which a student learns little


@dataclass(frozen=True)
class NetworkSize:
    """The size of a network."""

    arch: str | None
    parameters: int
    macs: int  # multiply-accumulate operations of one image
    latency_ms: float  # of one image, in single precision
    file_bytes: int | None


@dataclass(frozen=True)
class Forecast:
    """What `dfkd plan --json` prints."""

    recipe: str
    recipe_sha256: str
    task: TaskName
    values: dict[str, Any]  # of the recipe, with overrides and defaults
    teacher: NetworkSize
    student: NetworkSize
    device: str
    precision: str
    compiled: bool
    steps: int  # student steps of the recipe, or those that fit into the budget
    warmup_rounds: int  # rounds before the first student step
    seconds: Seconds
    step_s: float  # one student step
    round_s: float  # one round between student steps, every `train.round_every` steps
    peak_bytes: int
    measured_laps: int
    measured_s: float  # duration of the plan itself
    notes: tuple[str, ...]


def forecast(job: Job, note: Callable[[str], None]) -> Forecast:
    """Load the job, measure some steps and return the forecast. `note` receives sentences for the user.

    Raises what a run raises before it trains, and UsageError for a budget in which no student step fits.
    """
    started = time.monotonic()
    loaded = load_job(job)
    note("measuring some steps" + (", compiled, which takes a minute" if loaded.runtime.compiles else ""))
    loading_s = time.monotonic() - started
    teacher, student = _size(loaded.teacher, job.teacher), _size(loaded.final_student(), None)
    teacher_pass_s = time_teacher_pass(loaded, TRIED_IMAGES)
    pace = measure_pace(loaded, job.seed)
    steps, rounds, seconds = reckon(loaded.recipe.train, pace, loading_s, teacher_pass_s)
    if not steps:
        raise UsageError(f"--budget of {seconds.total:.0f} s ends before the first step; give more time")
    return Forecast(
        recipe=job.recipe,
        recipe_sha256=loaded.recipe.sha256(),
        task=loaded.teacher.spec.task,
        values=asdict(loaded.recipe),
        teacher=teacher,
        student=student,
        device=str(loaded.runtime.device),
        precision=str(loaded.runtime.dtype).removeprefix("torch."),
        compiled=loaded.runtime.compiles,
        steps=steps,
        warmup_rounds=rounds,
        seconds=seconds,
        step_s=pace.step_s,
        round_s=pace.round_s,
        peak_bytes=pace.peak_bytes,
        measured_laps=pace.laps,
        measured_s=time.monotonic() - started,
        notes=(*loaded.notes(), *pace.notes, *_warnings(loaded.recipe.train, steps)),
    )


def _size(classifier: Classifier, source: str | None) -> NetworkSize:
    """Return the size of a teacher that was loaded from `source`, or of a student, which has no file yet."""
    return NetworkSize(
        arch=classifier.origin.arch,
        parameters=classifier.parameter_count(),
        macs=macs_per_image(classifier),
        latency_ms=_latency_ms(classifier),
        file_bytes=weight_bytes(classifier) if source is None else file_bytes(source),
    )


def _latency_ms(classifier: Classifier) -> float:
    with evaluating(classifier):
        return latency_ms(classifier, classifier.spec.size, classifier.mean.device)


def _warnings(config: TrainConfig, steps: int) -> list[str]:
    if config.budget is None or steps >= FEW_STEPS:
        return []
    return [f"Only {steps} steps fit into the budget: the student will learn little."]
