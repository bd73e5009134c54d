"""Build the report of a finished run."""

from pathlib import Path

from dfkd_cli.compression.job import Job, LoadedJob
from dfkd_cli.compression.measurement import Measurement, images_report
from dfkd_cli.compression.result_files import WrittenFiles
from dfkd_cli.loading.weights_file import file_bytes
from dfkd_cli.report.environment import Environment, gpu_name
from dfkd_cli.report.report import MemoryReport, RecipeReport, Report, StudentReport, TeacherReport, TimeReport
from dfkd_cli.training.engine import Distillation


def make_report(
    job: Job,
    loaded: LoadedJob,
    distillation: Distillation,
    written: WrittenFiles,
    measurement: Measurement,
    total_s: float,
) -> Report:
    """Return the report of a run that took `total_s`."""
    accuracy, seconds = measurement.accuracy, distillation.stopwatch.totals()
    return Report(
        relative_accuracy=accuracy and accuracy.relative_accuracy,
        agreement=measurement.agreement,
        agreement_on=measurement.agreement_on,
        teacher=_teacher(job, loaded, measurement),
        student=StudentReport(
            arch=_student_name(job, loaded),
            narrowed=loaded.plan is not None,
            accuracy=accuracy and accuracy.accuracy,
            parameters=loaded.student.parameter_count(),
            sha256=written.student.sha256,
            file_bytes=written.student.bytes,
        ),
        images=images_report(loaded, distillation),
        calibration=written.calibration,
        time=TimeReport(
            total_s=total_s,
            synthesis_s=seconds.get("synthesis", 0.0),
            distillation_s=seconds.get("distillation", 0.0),
        ),
        memory=MemoryReport(peak_bytes=distillation.peak_bytes()),
        recipe=RecipeReport(Path(job.recipe).stem, loaded.recipe.method, loaded.recipe.sha256()),
        steps=distillation.step,
        seed=job.seed,
        device=str(loaded.runtime.device),
        precision=str(loaded.runtime.dtype).removeprefix("torch."),
        optimizer=distillation.optimizer_kind,
        command=job.command,
        preprocessing=loaded.teacher.spec.preprocessing,
        notes=_notes(loaded, distillation, written),
        environment=Environment(gpu=gpu_name(loaded.runtime.device)),
        task=loaded.teacher.spec.task,
        segmentation=measurement.segmentation,
    )


def _notes(loaded: LoadedJob, distillation: Distillation, written: WrittenFiles) -> tuple[str, ...]:
    reader = None if loaded.data is None else loaded.data.reader
    of_files = () if reader is None else reader.notes()
    return (*loaded.notes(), *distillation.notes(), *of_files, *([written.exported] if written.exported else []))


def _student_name(job: Job, loaded: LoadedJob) -> str:
    """Return the architecture of the student, or the name of the teacher that it was made from with the share."""
    arch = loaded.student.origin.arch
    if loaded.plan is None:
        return arch or job.student
    return f"{arch or Path(job.teacher).stem} at {job.student}"


def _teacher(job: Job, loaded: LoadedJob, measurement: Measurement) -> TeacherReport:
    origin, accuracy = loaded.teacher.origin, measurement.accuracy
    return TeacherReport(
        source=origin.source,
        kind=origin.kind,
        arch=origin.arch,
        accuracy=accuracy and accuracy.teacher_accuracy,
        parameters=loaded.teacher.parameter_count(),
        batchnorm_layers=len(loaded.teacher.norm_statistics),
        sha256=origin.sha256,
        file_bytes=file_bytes(job.teacher),
        flags=job.load.as_words(),
        assumed=loaded.teacher.spec.assumed,
    )
