"""One compression from files to files: loads, connects, trains, measures and saves. The command line only parses."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

import torch

from dfkd_cli.classifier import Classifier
from dfkd_cli.clock import BudgetClock, Clock, StepClock
from dfkd_cli.datasets import LabelledImages, open_dataset
from dfkd_cli.device import resolve_device
from dfkd_cli.engine import Distillation, Event, TrainConfig
from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.evaluation import Evaluation, agreement, evaluate
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.methods import METHODS, check_needs
from dfkd_cli.networks import input_gradient_reaches
from dfkd_cli.output_folder import OutputFolder, write_atomically
from dfkd_cli.recipe import Recipe, load_recipe
from dfkd_cli.report import (
    ON_EVALUATION_DATA,
    ON_SYNTHETIC_IMAGES,
    ImagesReport,
    MemoryReport,
    RecipeReport,
    Report,
    StudentReport,
    TeacherReport,
    TimeReport,
    peak_memory_bytes,
    write_report,
)
from dfkd_cli.runtime import Precision, Runtime, choose_dtype
from dfkd_cli.samples import save_grid
from dfkd_cli.setting import Setting
from dfkd_cli.student import STUDENT_FILE, build_student, save_student

SHOWN_IMAGES = 100  # in samples.png
SYNTHETIC_BATCHES = 4  # of fresh images, for the agreement without evaluation data
SAVING_SECONDS = 3.0  # of a budget, for files and pictures
WORTH_COMPILING_S = 300.0  # of budget: on 2 cores compiling takes about a minute and nearly halves a step
WORTH_COMPILING_STEPS = 1500  # the same for runs without a budget


@dataclass(frozen=True)
class Job:
    """What the user asked for."""

    teacher: str
    load: LoadOptions
    student: str
    recipe: str
    overrides: tuple[str, ...]
    out: Path
    overwrite: bool
    seed: int
    device: str
    precision: Precision
    eval_data: str | None
    command: str


class Listener(Protocol):
    """Hears what happens while it happens."""

    def note(self, text: str) -> None:
        """One sentence the user should know."""

    def event(self, event: Event) -> None:
        """The loop went on."""


@dataclass(frozen=True)
class Parts:
    """What a job consists of once everything is loaded and checked."""

    recipe: Recipe
    teacher: Classifier
    student: Classifier
    data: LabelledImages | None
    runtime: Runtime


def compress(job: Job, listener: Listener) -> Report:
    """Trains a student of `job.teacher` and writes it with its report into `job.out`.

    Raises DfkdError and its subclasses for everything the user can act on; nothing is written then.
    """
    started = time.monotonic()
    folder = OutputFolder(job.out, job.overwrite)
    parts = load(job)
    for note in parts.teacher.origin.notes:
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


def save(parts: Parts, run: Distillation, job: Job, folder: Path, started: float) -> Report:
    """Writes student, recipe, pictures and report into the folder; measures what the report says."""
    method, device = run.method, parts.runtime.device
    recipe_sha = parts.recipe.sha256()
    parts.student.eval()
    student_sha = save_student(parts.student, folder, parts.teacher.origin.sha256, recipe_sha, parts.recipe.method)
    write_atomically(folder / "recipe.yaml", parts.recipe.to_yaml().encode())
    shown = method.shown_images(SHOWN_IMAGES)
    with torch.no_grad():
        save_grid(shown, parts.teacher(shown).argmax(dim=1), folder / "samples.png")
    if parts.data is not None:
        measured: Evaluation | None = evaluate(parts.student, parts.data, device, parts.teacher)
        agrees, agrees_on = measured.agreement, ON_EVALUATION_DATA
    else:
        measured = None
        fresh = method.fresh_images(SYNTHETIC_BATCHES * run.config.batch_size).split(run.config.batch_size)
        agrees, agrees_on = agreement(parts.student, parts.teacher, fresh), ON_SYNTHETIC_IMAGES
    origin, seconds, counts = parts.teacher.origin, run.stopwatch.totals(), method.counts()
    report = Report(
        relative_accuracy=measured and measured.relative_accuracy,
        agreement=agrees,
        agreement_on=agrees_on,
        teacher=TeacherReport(
            source=origin.source,
            kind=origin.kind,
            arch=origin.arch,
            accuracy=measured and measured.teacher_accuracy,
            parameters=parts.teacher.parameter_count(),
            batchnorm_layers=len(parts.teacher.norm_statistics),
            sha256=origin.sha256,
            file_bytes=_file_bytes(Path(job.teacher)),
        ),
        student=StudentReport(
            arch=parts.student.origin.arch or job.student,
            accuracy=measured and measured.accuracy,
            parameters=parts.student.parameter_count(),
            sha256=student_sha,
            file_bytes=(folder / STUDENT_FILE).stat().st_size,
        ),
        images=ImagesReport(generated=counts.generated, kept=counts.kept),
        time=TimeReport(
            total_s=time.monotonic() - started,
            synthesis_s=seconds.get("synthesis", 0.0),
            distillation_s=seconds.get("distillation", 0.0),
        ),
        memory=MemoryReport(peak_bytes=peak_memory_bytes(device)),
        recipe=RecipeReport(name=parts.recipe.method, sha256=recipe_sha),
        steps=run.step,
        seed=job.seed,
        device=str(device),
        precision=str(parts.runtime.dtype).removeprefix("torch."),
        command=job.command,
        notes=(*origin.notes, *run.notes()),
    )
    write_report(report, folder)
    return report


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


def _file_bytes(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
