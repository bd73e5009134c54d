"""The Python function `dfkd_cli.compress`, which the command `dfkd compress` calls too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from dfkd_cli.compression.compress import compress as run
from dfkd_cli.compression.make_job import Settings, make_job
from dfkd_cli.config.folders import default_folder
from dfkd_cli.config.times import parse_interval
from dfkd_cli.data.class_numbers import ClassOrder
from dfkd_cli.data.label_options import LabelOptions
from dfkd_cli.data.reading import Orientation, ReadOptions
from dfkd_cli.data.segmented import MaskOptions
from dfkd_cli.loading.options import Facts, load_options
from dfkd_cli.machine.runtime import Precision
from dfkd_cli.report.report import Report
from dfkd_cli.training.checkpoint import Interval
from dfkd_cli.training.session import Listener, SilentListener


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
        settings: changes of the recipe, as {"train.steps": 4000} or ["train.steps=4000"].
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
        calibration: write `calibration.safetensors` beside the student, about 1,000 images with the teacher's logits.
        listener: receives notes and the progress; None: nothing is shown.
        command: shell command for the report, which repeats the run; None: the equivalent `dfkd compress`.

    Returns the report, whose fields are those of `report.json`; None in all but the first of several processes, which
    `torchrun` started. Raises DfkdError or a subclass; then nothing is
    written, except the checkpoints from which the run can continue.
    """
    job = make_job(
        teacher=teacher,
        load=load_options(facts),
        student=str(student),
        recipe=recipe,
        out=out or default_folder(str(teacher), str(student)),
        budget=budget,
        settings=settings,
        eval_data=eval_data,
        masks=MaskOptions(tuple(ignore_index), None if class_names is None else Path(class_names)),
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
    return run(job, listener or SilentListener())
