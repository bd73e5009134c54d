"""Run a job: load, train, evaluate, and write the result."""

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dfkd_cli.compression.budget import time_teacher_pass
from dfkd_cli.compression.clock import make_clock
from dfkd_cli.compression.distillation import make_distillation
from dfkd_cli.compression.identity import PRECISIONS, make_identity, read_identity
from dfkd_cli.compression.introduction import introduction
from dfkd_cli.compression.job import Job, LoadedJob
from dfkd_cli.compression.load_job import load_job
from dfkd_cli.compression.make_calibration import make_calibration
from dfkd_cli.compression.measurement import measure_student
from dfkd_cli.compression.output_folder import OutputFolder
from dfkd_cli.compression.result_files import (
    WrittenFiles,
    evaluation_strips,
    write_calibration_file,
    write_documents,
    write_exported_student,
    write_images,
    write_student,
)
from dfkd_cli.compression.resumption import continued, lost_advice, resume_command, unfinished_notes
from dfkd_cli.compression.run_report import make_report
from dfkd_cli.errors import DfkdError, InterruptedRunError, UsageError
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.machine.runtime import Precision, choose_dtype
from dfkd_cli.machine.world.launch import launched_place
from dfkd_cli.machine.world.process_group import joined
from dfkd_cli.machine.world.world import World
from dfkd_cli.report.report import Report
from dfkd_cli.training.checkpoint import Checkpoints
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.metrics_log import MetricsLog
from dfkd_cli.training.session import Listener, Session, SilentListener
from dfkd_cli.training.shared_checkpoints import SharedCheckpoints


def compress(job: Job, listener: Listener) -> Report | None:
    """Train a student of `job.teacher`, write it with its report into `job.out` and return the report.

    Only the first of several processes writes, calls the listener and returns a report; the others return None. Raises
    DfkdError or a subclass for everything that the user can act on. Then nothing is written, except the checkpoints
    from which the run can continue.
    """
    started = time.monotonic()
    with joined(resolve_device(job.device), lost_advice(job)) as world:
        return _lead(job, listener, world, started) if world.is_first else _follow(job, world, started)


def _lead(job: Job, listener: Listener, world: World, started: float) -> Report:
    """Do the work of the first process, which writes the result."""
    folder, job = _open_folder(job)
    earlier = read_identity(folder.unfinished) if job.resume else None
    if earlier is not None:
        job = continued(job, earlier)
    if world.several:
        job = replace(job, precision=_precision(job))  # measured once, so that all processes use the same
        world.spread({"precision": job.precision, "resume": job.resume})
    loaded = load_job(job, world)
    this = make_identity(job, loaded)
    if earlier is not None:
        this.must_equal(earlier)
    for note in (*introduction(loaded), *loaded.notes(), *unfinished_notes(folder.stopped_at(), this, earlier)):
        listener.note(note)
    try:
        with folder as result:
            this.save(folder.unfinished)
            distillation, started = _train(job, loaded, folder.checkpoints, result, listener, started)
            return _save(job, loaded, distillation, result, started)
    except KeyboardInterrupt as error:
        step = folder.stopped_at()
        if step is None:
            raise
        raise InterruptedRunError(f"interrupted; to continue from step {step:,}: {resume_command(job)}") from error


def _follow(job: Job, world: World, started: float) -> None:
    """Do the work of any other process, which takes part in the training and writes nothing."""
    job = replace(job, **world.spread(None), eval_data=None)
    loaded = load_job(job, world)
    try:
        with TemporaryDirectory() as scratch:
            _train(job, loaded, Checkpoints(Path(scratch)), Path(scratch), SilentListener(), started)
    except KeyboardInterrupt as error:
        interrupted = InterruptedRunError("interrupted")
        interrupted.shown = False  # the first process says how to continue
        raise interrupted from error


def _open_folder(job: Job) -> tuple[OutputFolder, Job]:
    """Return the output folder, and the job, which continues from a checkpoint when `torchrun` restarted it."""
    if launched_place().restarts and not job.resume:
        with suppress(UsageError):  # nothing to continue
            return OutputFolder(job.out, resume=True), replace(job, resume=True)
    return OutputFolder(job.out, job.overwrite, job.resume), job


def _precision(job: Job) -> Precision:
    return PRECISIONS[choose_dtype(job.precision, resolve_device(job.device))]


def _train(
    job: Job, loaded: LoadedJob, checkpoints: Checkpoints, result: Path, listener: Listener, started: float
) -> tuple[Distillation, float]:
    """Train to the end, from the start or from a checkpoint.

    Returns the loop and the start of the run in `time.monotonic()`, without the time in which it was interrupted.
    """
    world = loaded.runtime.world
    checkpoints = SharedCheckpoints(checkpoints.folder, world)
    saved = checkpoints.load(listener.note) if job.resume else None
    if job.resume and saved is None:
        raise DfkdError(f"every checkpoint of {job.out} is damaged; start anew with --overwrite instead of --resume")
    if saved is not None:
        started -= saved["total_s"]
    clock = make_clock(loaded.recipe.train, started, time_teacher_pass(loaded), saved)
    distillation = make_distillation(loaded, clock, job.seed)
    with MetricsLog(result / "metrics.jsonl") as metrics:
        session = Session(distillation, checkpoints, job.checkpoint_every, metrics, listener, started)
        if saved is not None:
            session.resume(saved)
        session.train()
    world.close()
    return distillation, started


def _save(job: Job, loaded: LoadedJob, distillation: Distillation, result: Path, started: float) -> Report:
    """Evaluate the trained student, write all files of the result and return the report."""
    student_file = write_student(loaded, result)
    shown = write_images(loaded, distillation, result)
    calibration = None
    if job.calibration or loaded.data is None:  # without evaluation data the agreement is measured on these images
        kind = "synthetic" if loaded.pool is None else "pool"
        calibration = make_calibration(loaded.teacher, distillation.method.source, kind, student_file.sha256)
    measurement = measure_student(loaded, distillation, calibration)
    written = WrittenFiles(
        student_file,
        write_calibration_file(calibration, measurement, result) if job.calibration else None,
        write_exported_student(result),
    )
    report = make_report(job, loaded, distillation, written, measurement, time.monotonic() - started)
    write_documents(report, measurement, shown, loaded.data, result, evaluation_strips(loaded))
    return report
