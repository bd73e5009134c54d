"""The Python functions `dfkd_cli.evaluate`, which the command `dfkd evaluate` calls too, and `dfkd_cli.load`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from dfkd_cli.data.class_numbers import ClassOrder
from dfkd_cli.data.label_options import LabelOptions
from dfkd_cli.data.reading import Orientation, ReadOptions
from dfkd_cli.data.segmented import MaskOptions
from dfkd_cli.errors import UsageError
from dfkd_cli.evaluation.evaluate import evaluate as evaluate_on_labels
from dfkd_cli.evaluation.evaluate import load_network
from dfkd_cli.evaluation.evaluation import Evaluation
from dfkd_cli.evaluation.without_data import evaluate_without_data
from dfkd_cli.loading import LoadOptions
from dfkd_cli.loading.options import Facts, load_options
from dfkd_cli.loading.own_files import is_student
from dfkd_cli.networks.classifier import Classifier


def evaluate(
    network: str | Path,
    data: str | Path | None = None,
    *,
    teacher: str | Path | None = None,
    images: str | Path | None = None,
    classes: str | Path | None = None,
    class_order: ClassOrder | None = None,
    skip_unreadable: bool = False,
    device: str = "auto",
    batch_size: int = 256,
    value_range: tuple[float, float] | None = None,
    exif_orientation: Orientation = "apply",
    teacher_arch: str | None = None,
    teacher_prefix: str | None = None,
    ignore_index: Sequence[int] = (),
    class_names: str | Path | None = None,
    note: Callable[[str], None] | None = None,
    **facts: Unpack[Facts],
) -> Evaluation:
    """Return the accuracy of `network` on labelled images, and with a teacher relative accuracy and agreement.

    Without `data` the accuracy is not measured. Then the result holds the agreement with the teacher, parameters,
    multiply-accumulate operations and latency of a network that was checked: it loads, its weights are finite and,
    if `report.json` is beside it, have the sha256 in there.

    Args:
        network: folder or file of a student, an ONNX file, or any teacher of `compress`.
        data: a folder with one subfolder per class, or cifar10:ROOT, cifar100:ROOT, mnist:ROOT, fashion-mnist:ROOT
            in torchvision's format. For a segmentation network a folder with images/ and masks/, or voc:ROOT,
            cityscapes:ROOT.
        teacher: a network to compare with. Without it and without `data`, the logits in the `calibration.safetensors`
            beside a student.
        images: without `data`: folder of unlabelled images for the agreement with `teacher`, in place of those in
            `calibration.safetensors`.
        classes: file with the names of the network's classes by number, one per line or as JSON; None: the names that
            a network's file states, or else the names of the class folders in alphabetical order.
        class_order: "text" or "natural", where these orders of the class folders differ and nothing states the names.
        skip_unreadable: leave out image files that cannot be decoded; the result lists them.
        device: "auto", "cpu", "cuda" or "cuda:INDEX".
        batch_size: images per batch.
        value_range, exif_orientation: how image files are read, as for `compress`.
        arch, prefix, num_classes, input_size, mean, std, crop_pct, interpolation, crop_mode, output: facts that a file
            does not contain, as for `compress`. They are for the network that dfkd did not write; if it wrote neither,
            for both.
        teacher_arch, teacher_prefix: of `teacher`, in place of `arch` and `prefix`.
        trust_pickle: open files that can run any code.
        strict: refuse to assume an input size, mean or std that neither the file nor an argument gives.
        task: "classification" or "segmentation"; None: seen in the shape of the logits.
        ignore_index: values of pixels in masks that do not count, besides 255.
        class_names: text file with one name per class, for a segmentation network.
        note: receives sentences for the user about the networks.

    Raises DfkdError or a subclass.
    """
    for flag, value in (("--teacher-arch", teacher_arch), ("--teacher-prefix", teacher_prefix)):
        if value is not None and teacher is None:
            raise UsageError(f"{flag} needs --teacher, which it describes")
    if images is not None and data is not None:
        raise UsageError("--images and --data exclude each other: with labelled images agreement is measured on them")
    if images is not None and teacher is None:
        raise UsageError("--images needs --teacher, whose predictions it compares with")
    labels = LabelOptions(None if classes is None else str(classes), class_order, skip_unreadable)
    labels.check_needed(data is not None, images is not None)
    told = load_options(facts)
    source, reference = str(network), None if teacher is None else str(teacher)
    teacher_facts = replace(
        told,
        arch=told.arch if teacher_arch is None else teacher_arch,
        prefix=told.prefix if teacher_prefix is None else teacher_prefix,
    )
    options, reference_options = _described(told, teacher_facts, source, reference)
    compared = None if reference is None else (reference, reference_options)
    note, reading = note or _ignore, ReadOptions(value_range, exif_orientation)
    masks = MaskOptions(tuple(ignore_index), None if class_names is None else Path(class_names))
    if data is None:
        if words := masks.as_words():
            raise UsageError(f"{words[0]} needs --data, the labelled images that it is about")
        folder = None if images is None else str(images)
        return evaluate_without_data(
            (source, options), compared, folder, reading, device, batch_size, note, skip_unreadable
        )
    return evaluate_on_labels((source, options), str(data), compared, reading, labels, masks, device, batch_size, note)


def load(source: str | Path, **facts: Unpack[Facts]) -> Classifier:
    """Return a network as a module that takes images [B, C, H, W] in [0, 1] and returns logits [B, K].

    The module normalises the images itself. It is on the CPU, in eval mode, and its parameters take no gradients.
    `source` is the folder or file of a student, an ONNX file, or any teacher of `compress`; the other arguments are
    facts that the file does not contain, as for `compress`. Raises UsageError and TeacherError.
    """
    return load_network(str(source), load_options(facts))


def _described(
    facts: LoadOptions, teacher_facts: LoadOptions, network: str, teacher: str | None
) -> tuple[LoadOptions, LoadOptions]:
    """Return the options for network and teacher: none for one that dfkd wrote, unless dfkd wrote both."""
    if teacher is None or is_student(network) == is_student(teacher):
        return facts, teacher_facts
    return (LoadOptions(), teacher_facts) if is_student(network) else (facts, LoadOptions())


def _ignore(text: str) -> None:
    pass
