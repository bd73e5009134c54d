"""`dfkd plan` without its flags: what a compression would take, from a few measured steps. Writes nothing."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from dfkd_cli.compression.compress import SAVING_SECONDS, load
from dfkd_cli.compression.job import Job, Parts
from dfkd_cli.compression.pace import Pace, measure_pace
from dfkd_cli.errors import UsageError
from dfkd_cli.evaluation.accuracy import measure_accuracy
from dfkd_cli.loading.weights_file import file_bytes
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.cost import macs_per_image, weight_bytes
from dfkd_cli.training.engine import TrainConfig

SAVING_S = 1.0  # what it usually takes, of the SAVING_SECONDS that a budget sets aside
TRIED_IMAGES = 512  # of the evaluation data


@dataclass(frozen=True)
class NetworkSize:
    """How big a network is."""

    arch: str | None
    parameters: int
    macs: int  # multiply-accumulate operations of one image
    file_bytes: int | None


@dataclass(frozen=True)
class Seconds:
    """Wall clock of the run to come, and of its parts."""

    total: float
    loading: float  # networks, and what only the first steps cost, such as compiling
    filling: float  # making images before the first student step
    synthesis: float  # making images between student steps
    distillation: float  # student steps
    evaluation: float  # on --eval, before and after the training
    saving: float


@dataclass(frozen=True)
class Forecast:
    """What `dfkd plan --json` prints."""

    recipe: str
    recipe_sha256: str
    values: dict[str, Any]  # the resolved recipe
    teacher: NetworkSize
    student: NetworkSize
    device: str
    precision: str
    compiled: bool
    steps: int  # student updates that the recipe has, or that fit into the budget
    filling_rounds: int
    seconds: Seconds
    step_s: float  # one student update
    refresh_s: float  # one renewal of the images, every `train.round_every` updates
    peak_bytes: int
    measured_laps: int
    measured_s: float  # what the plan itself took
    notes: tuple[str, ...]


def forecast(job: Job, note: Callable[[str], None]) -> Forecast:
    """Loads what the job names, tries some steps and reckons.

    Raises what a run would raise before it trains, and UsageError for a budget that leaves no step.
    """
    started = time.monotonic()
    parts = load(job)
    note("measuring a few steps" + (", compiled ones, which takes a minute" if parts.runtime.compiles else ""))
    loading_s = time.monotonic() - started
    teacher, student = _size(parts.teacher, job.teacher), _size(parts.student, None)
    evaluation_s = _seconds_to_evaluate(parts)
    pace = measure_pace(parts, job.seed)
    steps, rounds, seconds = reckon(parts.recipe.train, pace, loading_s, evaluation_s)
    if not steps:
        raise UsageError(f"--budget of {seconds.total:.0f} s ends before the first step; give it more time")
    return Forecast(
        recipe=job.recipe,
        recipe_sha256=parts.recipe.sha256(),
        values=asdict(parts.recipe),
        teacher=teacher,
        student=student,
        device=str(parts.runtime.device),
        precision=str(parts.runtime.dtype).removeprefix("torch."),
        compiled=parts.runtime.compiles,
        steps=steps,
        filling_rounds=rounds,
        seconds=seconds,
        step_s=pace.step_s,
        refresh_s=pace.refresh_s,
        peak_bytes=pace.peak_bytes,
        measured_laps=pace.laps,
        measured_s=time.monotonic() - started,
        notes=(*parts.notes(), *parts.runtime.notes, *_warnings(parts.recipe.train, steps)),
    )


def reckon(config: TrainConfig, pace: Pace, loading_s: float, evaluation_s: float) -> tuple[int, int, Seconds]:
    """Student steps, renewals before the first one, and the time of everything, by the recipe's schedule."""
    loading_s += pace.start_s
    rounds, steps, saving_s = pace.filling.rounds, config.steps, SAVING_S
    if config.budget is not None:
        left = config.budget - SAVING_SECONDS - evaluation_s - loading_s
        affordable = max(left, 0.0) * pace.filling.share
        rounds = min(rounds, math.ceil(affordable / pace.filling_s)) if pace.filling_s else rounds
        each = pace.step_s + pace.refresh_s / config.round_every
        steps = max(0, int((left - rounds * pace.filling_s) / each))
        saving_s = SAVING_SECONDS
    renewals = math.ceil(steps / config.round_every) - (rounds > 0)  # the last of the filling serves the first steps
    parts = {
        "loading": loading_s,
        "filling": rounds * pace.filling_s,
        "synthesis": max(0, renewals) * pace.refresh_s,
        "distillation": steps * pace.step_s,
        "evaluation": evaluation_s,
        "saving": saving_s,
    }
    return steps, rounds, Seconds(total=config.budget or sum(parts.values()), **parts)


def _size(classifier: Classifier, source: str | None) -> NetworkSize:
    """Of a teacher from `source`, or of a student that has no file yet."""
    return NetworkSize(
        arch=classifier.origin.arch,
        parameters=classifier.parameter_count(),
        macs=macs_per_image(classifier),
        file_bytes=weight_bytes(classifier) if source is None else file_bytes(source),
    )


def _seconds_to_evaluate(parts: Parts) -> float:
    """All measurements of a run: of the teacher at its start, of both networks at its end."""
    if parts.data is None:
        return 0.0
    tried = replace(parts.data, labels=parts.data.labels[:TRIED_IMAGES])
    begun = time.monotonic()
    measure_accuracy(parts.teacher, tried, parts.runtime.device)
    alone = time.monotonic()
    measure_accuracy(parts.student, tried, parts.runtime.device, parts.teacher)
    both = time.monotonic()
    return ((alone - begun) + (both - alone)) * len(parts.data) / len(tried)


def _warnings(config: TrainConfig, steps: int) -> list[str]:
    if config.budget is None or steps >= 100:
        return []
    return [f"Only {steps} steps fit into the budget: the student will have learned little."]
