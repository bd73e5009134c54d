"""Write the files of a finished run into its folder."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dfkd_cli.compression.job import LoadedJob
from dfkd_cli.compression.measurement import Measurement
from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.data.sample_grid import save_grid
from dfkd_cli.machine.files import write_atomically, write_text_atomically
from dfkd_cli.report.markdown_report import markdown_report
from dfkd_cli.report.model_card import model_card
from dfkd_cli.report.page.document import Evidence, render
from dfkd_cli.report.report import Report
from dfkd_cli.students.student import STUDENT_FILE, save_student
from dfkd_cli.training.engine import Distillation

SHOWN_IMAGES = 100  # in samples.png


class StudentFile(NamedTuple):
    """The student's weights on disk."""

    sha256: str
    bytes: int


class ShownImages(NamedTuple):
    """Images that the student learned from."""

    images: Tensor  # [N, C, H, W] in [0, 1]
    classes: Tensor  # [N]: the teacher's predictions


def write_student(loaded: LoadedJob, folder: Path) -> StudentFile:
    """Write the student, in eval mode, and the recipe with all values."""
    loaded.student.eval()
    teacher_sha, recipe = loaded.teacher.origin.sha256, loaded.recipe
    sha256 = save_student(
        loaded.student, folder, teacher_sha, recipe.sha256(), recipe.method, narrowed=loaded.plan is not None
    )
    write_atomically(folder / "recipe.yaml", recipe.to_yaml().encode())
    return StudentFile(sha256, (folder / STUDENT_FILE).stat().st_size)


def write_images(loaded: LoadedJob, distillation: Distillation, folder: Path) -> ShownImages:
    """Write the text files of the image source and a grid of images that the student learned from."""
    source = distillation.method.source
    for name, text in source.files().items():
        write_atomically(folder / name, text.encode(errors="surrogateescape"))  # file names may hold any byte
    images = source.shown(SHOWN_IMAGES)
    with torch.no_grad():
        classes = loaded.teacher(images).argmax(dim=1)
    save_grid(images, classes, folder / "samples.png")
    return ShownImages(images, classes)


def write_documents(
    report: Report, measurement: Measurement, shown: ShownImages, data: LabelledImages | None, folder: Path
) -> None:
    """Write the report as JSON, Markdown and HTML, and the model card. Reads `metrics.jsonl` in the folder."""
    write_text_atomically(folder / "report.json", report.to_json())
    write_text_atomically(folder / "report.md", markdown_report(report))
    metrics = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    names = None if data is None else data.class_names
    evidence = Evidence(metrics, shown.images, shown.classes, measurement.confusion, names)
    write_text_atomically(folder / "report.html", render(report, evidence))
    write_text_atomically(folder / "README.md", model_card(report, data))
