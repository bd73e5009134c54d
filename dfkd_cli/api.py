"""Python interface: compress a teacher, evaluate a network, load a network.

from dfkd_cli import compress, evaluate, load

report = compress("teacher.pt2", student=0.5, out="out", budget="30m")
print(evaluate("out", "images/", teacher="teacher.pt2").relative_accuracy)
student = load("out")

The commands `dfkd compress` and `dfkd evaluate` call these functions. All errors that a user can act on are subclasses
of `dfkd_cli.errors.DfkdError`; their messages name the options of the commands, which have the same names here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, cast

from dfkd_cli.compression import compress as compression
from dfkd_cli.compression.make_job import Settings, make_job
from dfkd_cli.config.folders import default_folder
from dfkd_cli.config.times import parse_interval
from dfkd_cli.data.class_numbers import ClassOrder
from dfkd_cli.data.label_options import LabelOptions
from dfkd_cli.data.reading import Orientation, ReadOptions
from dfkd_cli.data.segmented import MaskOptions
from dfkd_cli.errors import UsageError
from dfkd_cli.evaluation import evaluate as evaluation
from dfkd_cli.evaluation.evaluation import Evaluation
from dfkd_cli.evaluation.without_data import evaluate_without_data
from dfkd_cli.loading import LoadOptions
from dfkd_cli.loading.options import Facts
from dfkd_cli.machine.runtime import Precision
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.report.report import Report
from dfkd_cli.students.student import is_student
from dfkd_cli.training.checkpoint import Interval
from dfkd_cli.training.session import Listener, SilentListener

__all__ = ["compress", "evaluate", "load"]


def compress(
    teacher: str | Path,
    *,
    student: str | float = 0.5,
    out: str | Path | None = None,
    recipe: str | Path = "ssd",
    budget: str | float | None = None,
    settings: Settings = (),
    eval_data: str | Path | None = None,
    classes: str | Path | None = None,
    class_order: ClassOrder | None = None,
    skip_unreadable: bool = False,
    pool: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    value_range: tuple[float, float] | None = None,
    exif_orientation: Orientation = "apply",
    ignore_index: Sequence[int] = (),
    class_names: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: str = "5m",
    calibration: bool = True,
    listener: Listener | None = None,
    command: str | None = None,
    **facts: Unpack[Facts],
) -> Report | None:
    """Train a student of `teacher` without its training data, and write it with its report into the folder `out`.

    Args:
        teacher: a checkpoint, a TorchScript or .pt2 file, a folder with config.json, timm:NAME or hf-hub:NAME.
        student: share of the teacher's parameters that the student keeps, such as 0.5 or "25%", or an architecture that
            `dfkd models` lists.
        out: new folder for the result; None: a folder in the working directory, named after teacher and student.
        recipe: name of a recipe, or a YAML file.
        budget: time for the whole run, as seconds or as text such as "30m"; None: the steps of the recipe.
        settings: changes of the recipe, as {"train.lr": 0.05} or ["train.lr=0.05"].
        eval_data: labelled images for the evaluation, which are not trained on.
        classes, class_order, skip_unreadable: how they are read, as for `evaluate`. The class names are stored with the
            student.
        pool: folder of unlabelled images to train on, for the recipe `unlabeled`.
        seed: of all random choices. torch's global generator is seeded with it too.
        device: "auto", "cpu", "cuda" or "cuda:INDEX".
        precision: "auto", "fp32" or "bf16".
        value_range: the values of black and white in image files with more than 8 bits per value, such as (0, 4095).
        exif_orientation: "apply" turns images upright by the EXIF orientation of their files, "ignore" does not.
        arch, prefix, num_classes, input_size, mean, std, output: facts about the teacher that its file does not
            contain. `prefix` names one of several networks in a checkpoint. `input_size` is (channels, height, width);
            `mean` and `std` have one value, or one per channel, and are those of images in [0, 1].
        crop_pct, interpolation, crop_mode: how image files become images of the input size, in the words of timm. None:
            what the teacher's file states, or 1.0, "bilinear" and "center".
        trust_pickle: open files that can run any code.
        strict: refuse to assume an input size, mean or std that neither the file nor an argument gives.
        task: "classification" or "segmentation"; None: seen in the shape of the logits.
        ignore_index: values of pixels in the masks of `eval_data` that do not count, besides 255.
        class_names: text file with one name per class, for a segmentation network.
        overwrite: replace an existing result in `out`.
        resume: continue the interrupted run in `out`; the other arguments must be the same.
        checkpoint_every: interval between two checkpoints, as time ("5m") or steps ("500").
        calibration: leave `calibration.safetensors` beside the student, about 1,000 images with the teacher's logits.
        listener: receives notes and the progress; None: nothing is shown.
        command: shell command for the report, which repeats the run; None: the equivalent `dfkd compress`.

    Returns the report, whose fields are those of `report.json`; None in all but the first of several processes, which
    `torchrun` started. Raises DfkdError or a subclass; then nothing is
    written, except the checkpoints from which the run can continue.
    """
    job = make_job(
        teacher=teacher,
        load=_load_options(facts),
        student=str(student),
        recipe=recipe,
        out=out or default_folder(str(teacher), str(student)),
        budget=budget,
        settings=settings,
        eval_data=eval_data,
        masks=_mask_options(ignore_index, class_names),
        pool=pool,
        seed=seed,
        device=device,
        precision=precision,
        read_options=ReadOptions(value_range, exif_orientation),
        command=command,
        overwrite=overwrite,
        resume=resume,
        checkpoint_every=Interval(*parse_interval(checkpoint_every)),
        calibration=calibration,
        labels=LabelOptions(None if classes is None else str(classes), class_order, skip_unreadable),
    )
    return compression.compress(job, listener or SilentListener())


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
    told = _load_options(facts)
    source, reference = str(network), None if teacher is None else str(teacher)
    teacher_facts = replace(
        told,
        arch=told.arch if teacher_arch is None else teacher_arch,
        prefix=told.prefix if teacher_prefix is None else teacher_prefix,
    )
    options, reference_options = _described(told, teacher_facts, source, reference)
    compared = None if reference is None else (reference, reference_options)
    note, reading = note or _ignore, ReadOptions(value_range, exif_orientation)
    if data is None:
        folder = None if images is None else str(images)
        return evaluate_without_data(
            (source, options), compared, folder, reading, device, batch_size, note, skip_unreadable
        )
    masks = _mask_options(ignore_index, class_names)
    return evaluation.evaluate((source, options), str(data), compared, reading, labels, masks, device, batch_size, note)


def load(source: str | Path, **facts: Unpack[Facts]) -> Classifier:
    """Return a network as a module that takes images [B, C, H, W] in [0, 1] and returns logits [B, K].

    The module normalises the images itself. It is on the CPU, in eval mode, and its parameters take no gradients.
    `source` is the folder or file of a student, an ONNX file, or any teacher of `compress`; the other arguments are
    facts that the file does not contain, as for `compress`. Raises UsageError and TeacherError.
    """
    return evaluation.load_network(str(source), _load_options(facts))


def _load_options(facts: Facts) -> LoadOptions:
    told = cast(dict[str, Any], facts)
    lists: dict[str, Any] = {
        name: tuple(told[name]) for name in ("input_size", "mean", "std") if told.get(name) is not None
    }
    return LoadOptions(**(told | lists))


def _mask_options(ignore_index: Sequence[int], class_names: str | Path | None) -> MaskOptions:
    return MaskOptions(tuple(ignore_index), None if class_names is None else Path(class_names))


def _described(
    facts: LoadOptions, teacher_facts: LoadOptions, network: str, teacher: str | None
) -> tuple[LoadOptions, LoadOptions]:
    """Return the options for network and teacher: none for one that dfkd wrote, unless dfkd wrote both."""
    if teacher is None or is_student(network) == is_student(teacher):
        return facts, teacher_facts
    return (LoadOptions(), teacher_facts) if is_student(network) else (facts, LoadOptions())


def _ignore(text: str) -> None:
    pass
