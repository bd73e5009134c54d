"""Write the files of a finished run into its folder."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.compression.job import LoadedJob
from dfkd_cli.compression.measurement import Measurement
from dfkd_cli.data.class_colours import strips
from dfkd_cli.data.datasets import LabelledImages
from dfkd_cli.data.sample_grid import grid_of
from dfkd_cli.data.segmented import SegmentedImages
from dfkd_cli.errors import DfkdError
from dfkd_cli.evaluation.calibration import CALIBRATION_FILE, Calibration, write_calibration
from dfkd_cli.export.export import export
from dfkd_cli.export.job import ExportJob
from dfkd_cli.loading import LoadOptions
from dfkd_cli.loading.own_files import STUDENT_FILE
from dfkd_cli.machine.files import write_atomically, write_text_atomically
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.report.markdown_report import markdown_report
from dfkd_cli.report.model_card import model_card
from dfkd_cli.report.page.document import STRIP_BESIDE, Evidence, render
from dfkd_cli.report.report import CalibrationReport, Report
from dfkd_cli.students.student import save_student
from dfkd_cli.training.engine import Distillation

EXPORTED_FILE = "student.pt2"
SHOWN_IMAGES = 100  # in samples.png
SHOWN_STRIPS = 32  # of segmentation networks
SHOWN_SCENES = 6  # evaluation images on the page


class StudentFile(NamedTuple):
    """The student's weights on disk."""

    sha256: str
    bytes: int


class WrittenFiles(NamedTuple):
    """What the report states of the files of a result."""

    student: StudentFile
    calibration: CalibrationReport | None  # None without the file
    exported: str | None  # why there is no student.pt2; None if it was written


class ShownImages(NamedTuple):
    """Images that the student learned from."""

    images: Tensor  # [N, C, H, W] in [0, 1]; for segmentation with the classes of teacher and student on the right
    classes: Tensor  # [N]: the teacher's predictions, for segmentation the class of most pixels


def write_student(loaded: LoadedJob, folder: Path) -> StudentFile:
    """Write the student, in eval mode, and the recipe with all values."""
    loaded.student.eval()
    teacher_sha, recipe = loaded.teacher.origin.sha256, loaded.recipe
    narrowed = loaded.plan is not None
    sha256 = save_student(loaded.student, folder, teacher_sha, recipe.sha256(), recipe.method, narrowed)
    write_atomically(folder / "recipe.yaml", recipe.to_yaml().encode())
    return StudentFile(sha256, (folder / STUDENT_FILE).stat().st_size)


def write_calibration_file(
    calibration: Calibration | None, measurement: Measurement, folder: Path
) -> CalibrationReport | None:
    """Write the calibration images, if there are any, and return what the report states about them."""
    if calibration is None or measurement.calibrated is None:
        return None
    size = write_calibration(calibration, folder / CALIBRATION_FILE)
    return CalibrationReport(len(calibration), calibration.kind, measurement.calibrated.agreement, size)


def write_exported_student(folder: Path) -> str | None:
    """Write the student as a `torch.export` archive that takes any number of images in [0, 1].

    Return None, or a sentence if the student cannot be exported. Reads the student and its images in the folder.
    """
    source = folder / STUDENT_FILE
    job = ExportJob(
        source=str(source),
        load=LoadOptions(),
        to="pt2",
        out=folder / EXPORTED_FILE,
        overwrite=True,
        dynamic_batch=True,
        with_preprocessing=True,
    )
    try:
        export(job)
    except DfkdError as error:
        reason = " ".join(str(error).replace(str(source), STUDENT_FILE).split())
        return f"There is no {EXPORTED_FILE}: {reason}."
    return None


def write_images(loaded: LoadedJob, distillation: Distillation, folder: Path) -> ShownImages:
    """Write the text files of the image source and a grid of images that the student learned from."""
    source = distillation.method.source
    for name, text in source.files().items():
        write_atomically(folder / name, text.encode(errors="surrogateescape"))  # file names may hold any byte
    dense = loaded.teacher.spec.task == "segmentation"
    images = source.shown(SHOWN_STRIPS if dense else SHOWN_IMAGES)
    with evaluating(loaded.teacher, loaded.student):
        predicted = loaded.teacher(images).argmax(dim=1)
        if dense:
            images = strips(images, [predicted, loaded.student(images).argmax(dim=1)])
    classes = loaded.teacher.task.image_class(predicted, loaded.teacher.spec.num_classes)
    write_atomically(folder / "samples.png", grid_of(images, classes, STRIP_BESIDE if dense else 1))
    return ShownImages(images, classes)


def evaluation_strips(loaded: LoadedJob) -> Tensor | None:
    """Return some evaluation images with mask, teacher and student on the right; None for a classifier."""
    if not isinstance(loaded.data, SegmentedImages):
        return None
    spec, device = loaded.teacher.spec, loaded.runtime.device
    images, masks = next(loaded.data.first(SHOWN_SCENES).batches(SHOWN_SCENES, spec))
    whole = [F.interpolate(mask[None, None].float(), spec.size[1:])[0, 0].long() for mask in masks]
    with evaluating(loaded.teacher, loaded.student):
        placed = images.to(device)
        maps = [network(placed).argmax(dim=1).cpu() for network in (loaded.teacher, loaded.student)]
    return strips(images, [torch.stack(whole), *maps])


def write_documents(
    report: Report,
    measurement: Measurement,
    shown: ShownImages,
    data: LabelledImages | SegmentedImages | None,
    folder: Path,
    scenes: Tensor | None = None,
) -> None:
    """Write the report as JSON, Markdown and HTML, and the model card. Reads `metrics.jsonl` in the folder."""
    write_text_atomically(folder / "report.json", report.to_json())
    write_text_atomically(folder / "report.md", markdown_report(report))
    metrics = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    names = None if data is None else data.class_names
    evidence = Evidence(metrics, shown.images, shown.classes, measurement.confusion, names, scenes)
    write_text_atomically(folder / "report.html", render(report, evidence))
    write_text_atomically(folder / "README.md", model_card(report, data))
