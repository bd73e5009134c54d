"""The end of a compression: measures the student and writes everything a run leaves behind."""

import time
from pathlib import Path

import torch

from dfkd_cli.compression.job import Job, Parts
from dfkd_cli.data.sample_grid import save_grid
from dfkd_cli.evaluation.accuracy import Accuracy, measure_accuracy, measure_agreement
from dfkd_cli.evaluation.confusion import Confusion
from dfkd_cli.loading.weights_file import file_bytes
from dfkd_cli.machine.files import write_atomically, write_text_atomically
from dfkd_cli.report.environment import Environment, gpu_name
from dfkd_cli.report.images import ImagesReport
from dfkd_cli.report.markdown_report import markdown_report
from dfkd_cli.report.model_card import model_card
from dfkd_cli.report.page.document import Evidence, render
from dfkd_cli.report.report import (
    ON_EVALUATION_DATA,
    MemoryReport,
    RecipeReport,
    Report,
    StudentReport,
    TeacherReport,
    TimeReport,
)
from dfkd_cli.students.student import STUDENT_FILE, save_student
from dfkd_cli.training.engine import Distillation

SHOWN_IMAGES = 100  # in samples.png
SYNTHETIC_BATCHES = 4  # of fresh images, for the agreement without evaluation data


def save(parts: Parts, run: Distillation, job: Job, folder: Path, started: float) -> Report:
    """Writes student, recipe, pictures and report into the folder; measures what the report says."""
    parts.student.eval()
    student_sha = save_student(
        parts.student, folder, parts.teacher.origin.sha256, parts.recipe.sha256(), parts.recipe.method
    )
    write_atomically(folder / "recipe.yaml", parts.recipe.to_yaml().encode())
    for name, text in run.method.source.files().items():
        write_atomically(folder / name, text.encode(errors="surrogateescape"))  # file names may hold any byte
    shown = run.method.source.shown(SHOWN_IMAGES)
    with torch.no_grad():
        classes = parts.teacher(shown).argmax(dim=1)
    save_grid(shown, classes, folder / "samples.png")
    student_file = (student_sha, (folder / STUDENT_FILE).stat().st_size)
    confusion = Confusion(parts.teacher.spec.num_classes)
    report = _report(parts, run, job, student_file, _measure(parts, run, confusion), started)
    write_text_atomically(folder / "report.json", report.to_json())
    write_text_atomically(folder / "report.md", markdown_report(report))
    metrics = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    names = None if parts.data is None else parts.data.class_names
    evidence = Evidence(metrics, shown, classes, confusion, names)
    write_text_atomically(folder / "report.html", render(report, evidence))
    write_text_atomically(folder / "README.md", model_card(report, parts.data))
    return report


def _measure(parts: Parts, run: Distillation, confusion: Confusion) -> tuple[Accuracy | None, float | None, str]:
    """The evaluation, when there is data for one, and the agreement with the images it was measured on."""
    device = parts.runtime.device
    if parts.data is not None:
        measured = measure_accuracy(parts.student, parts.data, device, parts.teacher, confusion=confusion)
        return measured, measured.agreement, ON_EVALUATION_DATA
    batch = run.config.batch_size
    fresh = run.method.source.fresh(SYNTHETIC_BATCHES * batch).split(batch)
    agreement = measure_agreement(parts.student, parts.teacher, fresh, confusion)
    return None, agreement, _images(parts, run).wording.measured_on


def _images(parts: Parts, run: Distillation) -> ImagesReport:
    counts = run.method.source.counts()
    return ImagesReport(generated=counts.generated, kept=counts.kept, pool=parts.pool and str(parts.pool))


def _report(
    parts: Parts,
    run: Distillation,
    job: Job,
    student_file: tuple[str, int],
    measurement: tuple[Accuracy | None, float | None, str],
    started: float,
) -> Report:
    origin, seconds = parts.teacher.origin, run.stopwatch.totals()
    measured, agrees, agrees_on = measurement
    return Report(
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
            file_bytes=file_bytes(job.teacher),
            flags=job.load.as_words(),
        ),
        student=StudentReport(
            arch=parts.student.origin.arch or job.student,
            accuracy=measured and measured.accuracy,
            parameters=parts.student.parameter_count(),
            sha256=student_file[0],
            file_bytes=student_file[1],
        ),
        images=_images(parts, run),
        time=TimeReport(
            total_s=time.monotonic() - started,
            synthesis_s=seconds.get("synthesis", 0.0),
            distillation_s=seconds.get("distillation", 0.0),
        ),
        memory=MemoryReport(peak_bytes=run.peak_bytes()),
        recipe=RecipeReport(name=parts.recipe.method, sha256=parts.recipe.sha256()),
        steps=run.step,
        seed=job.seed,
        device=str(parts.runtime.device),
        precision=str(parts.runtime.dtype).removeprefix("torch."),
        optimizer=run.optimizer_kind,
        command=job.command,
        notes=(*parts.notes(), *run.notes()),
        environment=Environment(gpu=gpu_name(parts.runtime.device)),
    )
