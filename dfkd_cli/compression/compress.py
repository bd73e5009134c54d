"""One compression from files to files: loads, connects and trains. The command line only parses."""

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dfkd_cli.compression.identity import Identity, differences, identity, read_identity
from dfkd_cli.compression.job import Job, Parts
from dfkd_cli.compression.outcome import save
from dfkd_cli.compression.output_folder import OutputFolder
from dfkd_cli.data.datasets import open_dataset
from dfkd_cli.errors import DfkdError, InterruptedRunError, TeacherError, UsageError
from dfkd_cli.evaluation.accuracy import measure_accuracy
from dfkd_cli.loading import load_classifier
from dfkd_cli.machine.allocator import fail_before_memory_is_used_up, keep_freed_memory
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.runtime import Runtime, choose_dtype
from dfkd_cli.methods import METHODS, check_needs, check_pool_for
from dfkd_cli.networks import input_gradient_reaches
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.recipe.recipe import load_recipe
from dfkd_cli.report.report import Report
from dfkd_cli.students.inheritance import inherit_layers
from dfkd_cli.students.student import build_student
from dfkd_cli.training.checkpoint import Checkpoints
from dfkd_cli.training.clock import BudgetClock, Clock, StepClock
from dfkd_cli.training.engine import Distillation, TrainConfig
from dfkd_cli.training.metrics_log import MetricsLog
from dfkd_cli.training.session import Listener, Session
from dfkd_cli.training.setting import Setting

SAVING_SECONDS = 4.0  # of a budget, for files and pictures
WORTH_COMPILING_S = 300.0  # of budget: on 2 cores compiling takes about a minute and nearly halves a step
WORTH_COMPILING_STEPS = 1500  # the same for runs without a budget


def compress(job: Job, listener: Listener) -> Report:
    """Trains a student of `job.teacher` and writes it with its report into `job.out`.

    Raises DfkdError and its subclasses for everything the user can act on; nothing is written then, except the
    checkpoints from which a run that was stopped can go on.
    """
    started = time.monotonic()
    folder = OutputFolder(job.out, job.overwrite, job.resume)
    earlier = read_identity(folder.unfinished) if job.resume else None
    if earlier is not None:
        job = _as_before(job, earlier)
    parts = load(job)
    this = identity(job, parts)
    if earlier is not None:
        this.must_equal(earlier)
    for note in (*_introduction(parts), *parts.notes(), *_about_unfinished(folder, this, earlier)):
        listener.note(note)
    try:
        with folder as result:
            this.save(folder.unfinished)
            return _run(job, parts, folder.checkpoints, result, listener, started)
    except KeyboardInterrupt as error:
        step = folder.stopped_at()
        if step is None:
            raise
        raise InterruptedRunError(f"interrupted; to go on from step {step:,}: {_resume_command(job)}") from error


def load(job: Job) -> Parts:
    """Reads and checks everything a job names, cheapest first, without training anything."""
    recipe = load_recipe(job.recipe, list(job.overrides))
    check_pool_for(recipe.method, job.pool)
    _check_apart(job.pool, job.eval_data)
    device = resolve_device(job.device)
    if device.type == "cpu":
        keep_freed_memory()
        fail_before_memory_is_used_up()
    runtime = Runtime(device, choose_dtype(job.precision, device), _worth_compiling(recipe.train))
    teacher = load_classifier(job.teacher, job.load)
    check_needs(recipe.method, teacher)
    if not METHODS[recipe.method].needs.pool and not input_gradient_reaches(teacher.network, teacher.spec.size):
        raise TeacherError(
            f"{job.teacher} lets no gradient through to its images, as archives optimised for inference do; "
            "use the file from before that step"
        )
    data = open_dataset(job.eval_data, teacher.spec, "--eval") if job.eval_data is not None else None
    torch.manual_seed(job.seed)
    student = build_student(job.student, teacher.spec)
    if recipe.train.init == "teacher":
        _inherit(student, teacher)
    teacher = runtime.place(teacher).eval().requires_grad_(False)
    return Parts(recipe, teacher, runtime.place(student), data, runtime, job.pool)


def _inherit(student: Classifier, teacher: Classifier) -> None:
    """Gives the student those layers of the teacher that fit, and a note of it."""
    total = student.parameter_count()
    if inherited := inherit_layers(student.network.get_submodule("module"), teacher.network):
        note = f"The student begins with layers of the teacher: {inherited:,} of its {total:,} parameters."
        student.origin = replace(student.origin, notes=(*student.origin.notes, note))


def _check_apart(pool: Path | None, eval_data: str | None) -> None:
    """Raises UsageError when the student would be measured on pictures that it learns from."""
    if pool is None or eval_data is None:
        return
    learned, measured = pool.resolve(), Path(eval_data).resolve()
    if learned == measured or learned in measured.parents or measured in learned.parents:
        raise UsageError(
            f"--eval {eval_data} and --pool {pool} share pictures: accuracy on what the student learned from says "
            "nothing; evaluate on others, or leave --eval out"
        )


def begin(parts: Parts, clock: Clock, seed: int) -> Distillation:
    """The recipe's method, ready for its first step."""
    rng = torch.Generator(parts.runtime.device)
    rng.manual_seed(seed)
    setting = Setting(
        parts.teacher,
        parts.student,
        batch_size=parts.recipe.train.batch_size,
        augmentation=parts.recipe.augmentation,
        runtime=parts.runtime,
        rng=rng,
        pool=parts.pool,
    )
    method = METHODS[parts.recipe.method].build(setting, parts.recipe.options)
    return Distillation(method, setting, parts.recipe.train, clock)


def _run(job: Job, parts: Parts, checkpoints: Checkpoints, result: Path, listener: Listener, started: float) -> Report:
    """Trains from the start or a checkpoint to the end, and writes the result into its folder."""
    saved = checkpoints.load(listener.note) if job.resume else None
    if job.resume and saved is None:
        raise DfkdError(f"every checkpoint of {job.out} is damaged; start anew with --overwrite instead of --resume")
    if saved is not None:
        started -= saved["total_s"]
    reserve = SAVING_SECONDS + _seconds_to_evaluate(parts)
    run = begin(parts, _clock(parts.recipe.train, started, reserve, saved), job.seed)
    with MetricsLog(result / "metrics.jsonl") as metrics:
        session = Session(run, checkpoints, job.checkpoint_every, metrics, listener, started)
        if saved is not None:
            session.resume(saved)
        session.train()
    return save(parts, run, job, result, started)


def _as_before(job: Job, earlier: Identity) -> Job:
    """The job with what the unfinished run had found out: measured again, the faster precision may be another one."""
    precision = earlier.facts.get("precision", "auto") if job.precision == "auto" else job.precision
    return replace(job, precision=precision, command=earlier.command)


def _about_unfinished(folder: OutputFolder, this: Identity, earlier: Identity | None) -> list[str]:
    """What to know of the run that was stopped, if there is one."""
    step = folder.stopped_at()
    if earlier is None:
        return [] if step is None else [f"discarding the unfinished run that had come to step {step:,}"]
    changed = differences(earlier.environment, this.environment)
    return [f"not bit for bit what it would have been: {'; '.join(changed)}"] if changed else []


def _resume_command(job: Job) -> str:
    return f"{job.command} --resume {shlex.quote(str(job.out))}"


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


def _clock(config: TrainConfig, started: float, reserve: float, saved: dict[str, Any] | None) -> Clock:
    """The clock of a run that would have `started` then, had it never stopped; a budget leaves time to save."""
    if config.budget is None:
        return StepClock(config.steps)
    left = config.budget - reserve - (time.monotonic() - started)
    if saved is not None:
        return BudgetClock(saved["distillation"]["clock"]["used"] + max(left, 0.0))
    if left <= 0.0:
        raise UsageError(f"--budget of {config.budget:.0f} s is used up before training starts; give it more time")
    return BudgetClock(left)


def _seconds_to_evaluate(parts: Parts) -> float:
    """How long the final measurement will take, measured on the teacher; also finds unreadable pictures early."""
    if parts.data is None:
        return 0.0
    begun = time.monotonic()
    measure_accuracy(parts.teacher, parts.data, parts.runtime.device)
    return 2.0 * (time.monotonic() - begun)


def _worth_compiling(config: TrainConfig) -> bool:
    if config.compile != "auto":
        return config.compile == "on"
    return config.steps >= WORTH_COMPILING_STEPS if config.budget is None else config.budget >= WORTH_COMPILING_S
