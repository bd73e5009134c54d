"""Run a job: load, train, evaluate, and write the result."""

import time
from pathlib import Path

from dfkd_cli.compression.budget import time_teacher_pass
from dfkd_cli.compression.calibration import make_calibration
from dfkd_cli.compression.clock import make_clock
from dfkd_cli.compression.distillation import make_distillation
from dfkd_cli.compression.identity import make_identity, read_identity
from dfkd_cli.compression.introduction import introduction
from dfkd_cli.compression.job import Job, LoadedJob
from dfkd_cli.compression.load_job import load_job
from dfkd_cli.compression.measurement import measure_student
from dfkd_cli.compression.output_folder import OutputFolder
from dfkd_cli.compression.result_files import (
    WrittenFiles,
    write_calibration_file,
    write_documents,
    write_exported_student,
    write_images,
    write_student,
)
from dfkd_cli.compression.resumption import continued, resume_command, unfinished_notes
from dfkd_cli.compression.run_report import make_report
from dfkd_cli.errors import DfkdError, InterruptedRunError
from dfkd_cli.report.report import Report
from dfkd_cli.training.checkpoint import Checkpoints
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.metrics_log import MetricsLog
from dfkd_cli.training.session import Listener, Session


def compress(job: Job, listener: Listener) -> Report:
    """Train a student of `job.teacher`, write it with its report into `job.out` and return the report.

    Raises DfkdError or a subclass for everything that the user can act on. Then nothing is written, except the
    checkpoints from which the run can continue.
    """
    started = time.monotonic()
    folder = OutputFolder(job.out, job.overwrite, job.resume)
    earlier = read_identity(folder.unfinished) if job.resume else None
    if earlier is not None:
        job = continued(job, earlier)
    loaded = load_job(job)
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


def _train(
    job: Job, loaded: LoadedJob, checkpoints: Checkpoints, result: Path, listener: Listener, started: float
) -> tuple[Distillation, float]:
    """Train to the end, from the start or from a checkpoint.

    Returns the loop and the start of the run in `time.monotonic()`, without the time in which it was interrupted.
    """
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
    return distillation, started


def _save(job: Job, loaded: LoadedJob, distillation: Distillation, result: Path, started: float) -> Report:
    """Evaluate the trained student, write all files of the result and return the report."""
    student_file = write_student(loaded, result)
    shown = write_images(loaded, distillation, result)
    calibration = None
    if job.calibration or loaded.data is None:  # without evaluation data the agreement is measured on these images
        calibration = make_calibration(loaded, distillation.method.source, student_file.sha256)
    measurement = measure_student(loaded, distillation, calibration)
    written = WrittenFiles(
        student_file,
        write_calibration_file(calibration, measurement, result) if job.calibration else None,
        write_exported_student(result),
    )
    report = make_report(job, loaded, distillation, written, measurement, time.monotonic() - started)
    write_documents(report, measurement, shown, loaded.data, result)
    return report
