"""`dfkd evaluate` without labelled images: what can be checked of a network when its accuracy cannot be measured."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkd_cli.data.reading import ReadOptions
from dfkd_cli.data.segmented import WHOLE
from dfkd_cli.data.unlabelled import UnlabelledImages, open_unlabelled
from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.evaluation.accuracy import check_same_classes
from dfkd_cli.evaluation.agreement import measure_agreement, with_logits
from dfkd_cli.evaluation.benchmark import latency_ms
from dfkd_cli.evaluation.calibration import CALIBRATION_FILE, Calibration, read_calibration
from dfkd_cli.evaluation.evaluate import Source, load_network, tell
from dfkd_cli.evaluation.evaluation import Evaluation
from dfkd_cli.loading.failures import damaged_file
from dfkd_cli.loading.weights_file import file_bytes, weights_file
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.networks.classifier import Classifier, InputSpec
from dfkd_cli.networks.cost import macs_per_image

REPORT_FILE = "report.json"
REMARK = "accuracy was not measured: no labelled images were given"
_KINDS = {"synthetic": "fresh synthetic images", "pool": "images of the pool"}


@dataclass(frozen=True)
class _Comparison:
    """What the agreement is measured on: images with the teacher's logits for them, and their name."""

    batches: Iterator[tuple[Tensor, Tensor]]
    name: str


def evaluate_without_data(
    student: Source,
    teacher: Source | None,
    images: str | None,
    read_options: ReadOptions,
    device: str,
    batch_size: int,
    note: Callable[[str], None],
    skip_unreadable: bool = False,
) -> Evaluation:
    """Return size, latency and agreement of a network whose weights are finite and those of its report.

    The agreement is that with `teacher` on the image files in the folder `images`, or on the calibration images beside
    the student; without a teacher, that with the logits stored there. `note` receives one sentence for each thing that
    the user should know about a network or the image files. Raises UsageError when there is nothing to compare with,
    and TeacherError when the files beside the student are damaged or belong to another one.
    """
    where = resolve_device(device)
    network = load_network(*student)
    matches = _check_report(student[0], network)
    calibration = None if images is not None else _calibration(student[0], network, teacher is not None)
    reference = None if teacher is None else load_network(*teacher)
    tell(note, network.origin.notes, reference.origin.notes if reference else ())
    network.to(where)
    opened = None
    if images is not None:
        opened = open_unlabelled(images, network.spec.size[0], "--images", read_options, skip_unreadable)
        tell(note, opened.contents.notes(images))
    comparison = _comparison(network, reference, opened, calibration, batch_size)
    measured = measure_agreement(network, comparison.batches)
    tell(note, opened.reader.notes() if opened else ())
    return Evaluation(
        images=measured.images,
        accuracy=None,
        agreement=measured.agreement,
        exif_oriented=None if opened is None else len(opened.reader.turned),
        agreement_on=comparison.name,
        kl=measured.kl,
        preprocessing=network.spec.preprocessing,
        parameters=network.parameter_count(),
        file_bytes=file_bytes(student[0]),
        macs=None if network.origin.kind == "ONNX" else macs_per_image(network),
        latency_ms=latency_ms(network, network.spec.size, where),
        sha256=network.origin.sha256,
        report_matches=matches,
        data=None if opened is None else opened.contents,
        remark=REMARK,
        task=network.spec.task,
    )


def _comparison(
    network: Classifier,
    teacher: Classifier | None,
    opened: UnlabelledImages | None,
    calibration: Calibration | None,
    batch: int,
) -> _Comparison:
    device, size = network.mean.device, network.spec.size
    if teacher is not None:
        check_same_classes(network, teacher)
        teacher.to(device)
    if opened is not None:
        if teacher is None:
            raise UsageError("agreement on images needs a teacher")
        specs = [network.spec, teacher.spec]
        if network.spec.task == "segmentation":  # which no image is cropped for
            specs = [replace(spec, preprocessing=WHOLE) for spec in specs]
        compared = with_logits(teacher, _twice(opened, specs[0], specs[1], batch, device))
        return _Comparison(((shown, network.task.at_size(logits, shown)) for shown, logits in compared), opened.folder)
    if calibration is None:
        raise ValueError("neither images nor a calibration file")
    pairs, name = calibration.batches(batch, device), f"{_KINDS[calibration.kind]} in {CALIBRATION_FILE}"
    if teacher is None:
        return _Comparison(pairs, name)
    if teacher.spec.size != size:
        taken = " and ".join("x".join(map(str, each)) for each in (size, teacher.spec.size))
        raise UsageError(f"the two networks take images of {taken}: give image files with --images DIR to compare them")
    return _Comparison(with_logits(teacher, ((shown, shown) for shown, _ in pairs)), name)


def _twice(
    opened: UnlabelledImages, spec: InputSpec, teacher_spec: InputSpec, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the same images for the inputs of both networks; they are decoded once if these are equal."""
    if spec.same_images(teacher_spec):
        for images in opened.batches(batch_size, spec):
            placed = images.to(device)
            yield placed, placed
        return
    pairs = zip(opened.batches(batch_size, spec), opened.batches(batch_size, teacher_spec), strict=True)
    for images, teacher_images in pairs:
        yield images.to(device), teacher_images.to(device)


def _check_report(source: str, network: Classifier) -> bool | None:
    """Return True if the report beside a student is that of this student, None without such a report.

    Raises TeacherError when it is that of another student or damaged.
    """
    path = _beside(source, REPORT_FILE)
    if path is None or network.origin.kind != "dfkd student":
        return None
    with damaged_file(path, "a report"):
        report: Any = json.loads(path.read_text(encoding="utf-8"))
    student = report.get("student") if isinstance(report, dict) else None
    if not isinstance(student, dict) or "sha256" not in student:
        return None  # of another program
    _check_sha256(source, network, student["sha256"], path)
    return True


def _calibration(source: str, network: Classifier, has_teacher: bool) -> Calibration:
    """Return the calibration images beside a network.

    Raises UsageError when there are none, and TeacherError when they are damaged or not those of the network.
    """
    calibration = calibration_beside(source, network)
    if calibration is None:
        wanted = "--images DIR" if has_teacher else "--teacher and --images DIR"
        raise UsageError(
            f"there is no {CALIBRATION_FILE} beside {source}, on which agreement is measured without images of yours; "
            f"give {wanted} (unlabelled images), or --data DIR (labelled images)"
        )
    return calibration


def calibration_beside(source: str, network: Classifier) -> Calibration | None:
    """Return the calibration images beside a network, None when there are none.

    Raises TeacherError when they are damaged or not those of the network.
    """
    path = _beside(source, CALIBRATION_FILE)
    if path is None:
        return None
    calibration = read_calibration(path)
    if network.origin.kind == "dfkd student":
        _check_sha256(source, network, calibration.student_sha256, path)
    found = (*calibration.images.shape[1:], calibration.logits.shape[1])
    # A segmentation network may have learned from parts of images, whose size these images have.
    size = network.spec.size if network.spec.task == "classification" else (network.spec.size[0], *found[1:3])
    if found != (*size, network.spec.num_classes) or (calibration.logits.dim() == 4) != (
        network.spec.task == "segmentation"
    ):
        raise TeacherError(
            f"{path} holds images of {'x'.join(map(str, found[:3]))} and logits of {found[3]} classes, which are not "
            f"those of {source}; move the network to a folder of its own"
        )
    return calibration


def _check_sha256(source: str, network: Classifier, stated: object, path: Path) -> None:
    if stated != network.origin.sha256:
        raise TeacherError(
            f"{source} is not the student that {path} was written with: its sha256 is {network.origin.sha256}, "
            f"{path.name} states {stated}; copy the whole folder again, or move the student to a folder of its own"
        )


def _beside(source: str, name: str) -> Path | None:
    """Return the file of this name in the folder of the weights, None when there is none."""
    weights = weights_file(source)
    path = None if weights is None else weights.parent / name
    return path if path is not None and path.is_file() else None
