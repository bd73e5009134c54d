"""One compression from files to files: loads, connects and trains. The command line only parses."""

import json
import time
from typing import Protocol, TextIO

import torch

from dfkd_cli.clock import BudgetClock, Clock, StepClock
from dfkd_cli.datasets import open_dataset
from dfkd_cli.device import resolve_device
from dfkd_cli.engine import Distillation, Event, TrainConfig
from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.evaluation import evaluate
from dfkd_cli.job import Job, Parts
from dfkd_cli.loading import load_classifier
from dfkd_cli.methods import METHODS, check_needs
from dfkd_cli.networks import input_gradient_reaches
from dfkd_cli.outcome import save
from dfkd_cli.output_folder import OutputFolder
from dfkd_cli.recipe import load_recipe
from dfkd_cli.report import Report
from dfkd_cli.runtime import Runtime, choose_dtype
from dfkd_cli.setting import Setting
from dfkd_cli.student import build_student

SAVING_SECONDS = 4.0  # of a budget, for files and pictures
WORTH_COMPILING_S = 300.0  # of budget: on 2 cores compiling takes about a minute and nearly halves a step
WORTH_COMPILING_STEPS = 1500  # the same for runs without a budget


class Listener(Protocol):
    """Hears what happens while it happens."""

    def note(self, text: str) -> None:
        """One sentence the user should know."""

    def event(self, event: Event) -> None:
        """The loop went on."""


def compress(job: Job, listener: Listener) -> Report:
    """Trains a student of `job.teacher` and writes it with its report into `job.out`.

    Raises DfkdError and its subclasses for everything the user can act on; nothing is written then.
    """
    started = time.monotonic()
    folder = OutputFolder(job.out, job.overwrite)
    parts = load(job)
    for note in (*_introduction(parts), *parts.teacher.origin.notes):
        listener.note(note)
    with folder as unfinished:
        reserve = SAVING_SECONDS + _seconds_to_evaluate(parts)
        with (unfinished / "metrics.jsonl").open("w", encoding="utf-8") as metrics:
            run = train(parts, _clock(parts.recipe.train, started, reserve), job.seed, listener, metrics)
        for note in run.notes():
            listener.note(note)
        return save(parts, run, job, unfinished, started)


def load(job: Job) -> Parts:
    """Reads and checks everything a job names, cheapest first, without training anything."""
    recipe = load_recipe(job.recipe, list(job.overrides))
    device = resolve_device(job.device)
    runtime = Runtime(device, choose_dtype(job.precision, device), _worth_compiling(recipe.train))
    teacher = load_classifier(job.teacher, job.load)
    check_needs(recipe.method, teacher)
    if not input_gradient_reaches(teacher.network, teacher.spec.size):
        raise TeacherError(
            f"{job.teacher} lets no gradient through to its images, as archives optimised for inference do; "
            "use the file from before that step"
        )
    data = open_dataset(job.eval_data, teacher.spec) if job.eval_data else None
    torch.manual_seed(job.seed)
    student = build_student(job.student, teacher.spec)
    teacher = runtime.place(teacher).eval().requires_grad_(False)
    return Parts(recipe, teacher, runtime.place(student), data, runtime)


def train(parts: Parts, clock: Clock, seed: int, listener: Listener, metrics: TextIO) -> Distillation:
    """Runs the recipe's method to its end; every event goes to the listener and, as one line of JSON, to `metrics`."""
    rng = torch.Generator(parts.runtime.device)
    rng.manual_seed(seed)
    setting = Setting(
        parts.teacher,
        parts.student,
        batch_size=parts.recipe.train.batch_size,
        augmentation=parts.recipe.augmentation,
        runtime=parts.runtime,
        rng=rng,
    )
    method = METHODS[parts.recipe.method](setting, parts.recipe.options)
    run = Distillation(method, setting, parts.recipe.train, clock)
    begun = time.monotonic()
    for event in run.run():
        listener.event(event)
        line = {"time_s": round(time.monotonic() - begun, 3), **event._asdict()}
        metrics.write(json.dumps(line) + "\n")
        metrics.flush()
    return run


def _introduction(parts: Parts) -> list[str]:
    """What was understood of the job, before the long part of it begins."""
    teacher, student, spec = parts.teacher, parts.student, parts.teacher.spec
    found = ", ".join(f"{name} from {where}" for name, where in teacher.origin.found.items())
    dtype = str(parts.runtime.dtype).removeprefix("torch.")
    return [
        f"teacher: {teacher.origin.kind}, {teacher.parameter_count():,} parameters, "
        f"{len(teacher.norm_statistics)} BatchNorm layers, {spec.num_classes} classes, "
        f"images {'x'.join(map(str, spec.size))} ({found})",
        f"student: {student.origin.arch}, {student.parameter_count():,} parameters",
        f"computing on {parts.runtime.device} in {dtype}"
        + (", compiled: the first steps take a minute" if parts.runtime.compiles else ""),
    ]


def _clock(config: TrainConfig, started: float, reserve: float) -> Clock:
    if config.budget is None:
        return StepClock(config.steps)
    left = config.budget - reserve - (time.monotonic() - started)
    if left <= 0.0:
        raise UsageError(f"--budget of {config.budget:.0f} s is used up before training starts; give it more time")
    return BudgetClock(left)


def _seconds_to_evaluate(parts: Parts) -> float:
    """How long the final measurement will take, measured on the teacher; also finds unreadable pictures early."""
    if parts.data is None:
        return 0.0
    begun = time.monotonic()
    evaluate(parts.teacher, parts.data, parts.runtime.device)
    return 2.0 * (time.monotonic() - begun)


def _worth_compiling(config: TrainConfig) -> bool:
    if config.compile != "auto":
        return config.compile == "on"
    return config.steps >= WORTH_COMPILING_STEPS if config.budget is None else config.budget >= WORTH_COMPILING_S
