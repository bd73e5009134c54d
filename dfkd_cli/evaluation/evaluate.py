"""The function of `dfkd evaluate --data`: accuracy of a network, and of its teacher, on labelled images."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

from dfkd_cli.data.datasets import LabelledImages, open_dataset
from dfkd_cli.data.label_options import LabelOptions
from dfkd_cli.data.reading import ReadOptions
from dfkd_cli.data.segmented import IGNORED, WHOLE, MaskOptions, SegmentedImages, open_segmented
from dfkd_cli.evaluation.accuracy import Accuracy, check_same_classes, measure_accuracy
from dfkd_cli.evaluation.evaluation import Evaluation
from dfkd_cli.evaluation.segmentation import LARGEST_BATCH, Segmentation, measure_segmentation
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.loading.onnx import load_onnx
from dfkd_cli.loading.sniff import is_onnx
from dfkd_cli.loading.weights_file import file_bytes
from dfkd_cli.machine.device import resolve_device
from dfkd_cli.networks.classifier import Classifier, Preprocessing

Source = tuple[str, LoadOptions]  # a network as the user names it, and the flags that describe it


def evaluate(
    student: Source,
    data: str,
    teacher: Source | None,
    read_options: ReadOptions,
    labels: LabelOptions,
    masks: MaskOptions,
    device: str,
    batch_size: int,
    note: Callable[[str], None],
) -> Evaluation:
    """Load the networks and the labelled images at `data`, and return the student's accuracy and size.

    `labels` is about images with a class each, `masks` about the masks that a segmentation network is measured on.
    `note` receives one sentence for each thing that the user should know about a network or the image files. Raises
    what `load_classifier`, `open_dataset`, `open_segmented`, `measure_accuracy` and `measure_segmentation` raise.
    """
    where = resolve_device(device)
    network = load_network(*student)
    reference = None if teacher is None else load_network(*teacher)
    images = _open(data, network, reference, read_options, labels, masks)
    tell(note, network.origin.notes, reference.origin.notes if reference else ())
    facts: dict[str, Any] = {
        "parameters": network.parameter_count(),
        "file_bytes": file_bytes(student[0]),
        "sha256": network.origin.sha256,
    }
    if isinstance(images, SegmentedImages):
        found = measure_segmentation(network, images, where, reference, min(batch_size, LARGEST_BATCH))
        tell(note, images.reader.notes(), _lost_class(found))
        return _segmentation(found, images, facts)
    tell(note, images.contents.notes(data))
    measured = measure_accuracy(network, images, where, teacher=reference, batch_size=batch_size)
    tell(note, images.reader.notes() if images.reader else ())
    return _classification(measured, images, network.spec.preprocessing, facts)


def tell(note: Callable[[str], None], *groups: Iterable[str]) -> None:
    """Pass every sentence of the groups on."""
    for text in chain(*groups):
        note(text)


def _open(
    data: str,
    network: Classifier,
    reference: Classifier | None,
    read_options: ReadOptions,
    labels: LabelOptions,
    masks: MaskOptions,
) -> LabelledImages | SegmentedImages:
    """Return the images for both networks, which have the same classes; options for the other task are refused."""
    spec = network.spec
    if reference is not None:
        check_same_classes(network, reference)
        spec = replace(spec, class_names=spec.class_names or reference.spec.class_names)
    if spec.task == "segmentation":
        labels.check_unused()
        return open_segmented(data, spec, masks, read_options)
    masks.check_unused()
    return open_dataset(data, spec, options=read_options, labels=labels)


def _classification(
    measured: Accuracy, images: LabelledImages, preprocessing: Preprocessing, facts: dict[str, Any]
) -> Evaluation:
    """Return the document for a classifier."""
    return Evaluation(
        **asdict(measured),
        exif_oriented=None if images.reader is None else len(images.reader.turned),
        agreement_on=None if measured.agreement is None else "labelled images",
        preprocessing=preprocessing,
        data=images.contents,
        **facts,
    )


def _segmentation(measured: Segmentation, images: SegmentedImages, facts: dict[str, Any]) -> Evaluation:
    """Return the document for a segmentation network."""
    return Evaluation(
        images=measured.images,
        accuracy=None,
        agreement=measured.agreement,
        agreement_on=None if measured.agreement is None else "labelled images",
        exif_oriented=len(images.reader.turned),
        preprocessing=WHOLE,
        task="segmentation",
        pixels=measured.pixels,
        scores=measured.student,
        teacher_scores=measured.teacher,
        relative_miou=measured.relative_miou,
        classes=measured.classes,
        **facts,
    )


def _lost_class(measured: Segmentation) -> tuple[str, ...]:
    """Return a note when the masks have one of two classes only, because 255 often means the other one."""
    lost = [score for score in measured.classes if not score.pixels]
    if len(measured.classes) != 2 or len(lost) != 1:
        return ()
    return (
        f"The masks have no pixel of the class {lost[0].name}. Pixels of the value {IGNORED} do not count: where "
        "they are a class, write the masks with the numbers of the classes.",
    )


def load_network(source: str, options: LoadOptions) -> Classifier:
    """Return any network that `dfkd compress` takes, or the network in an ONNX file."""
    return load_onnx(source, options) if is_onnx(source) else load_classifier(source, options)
