"""Exports a network as a file, and compares the file with the network before it is written."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.config.version import __version__
from dfkd_cli.errors import DfkdError, UsageError, first_line
from dfkd_cli.export.forms import EXPORT_FORMS, FormName
from dfkd_cli.export.probes import Probe, random_probe, synthetic_probe
from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.loading.weights_file import weights_file
from dfkd_cli.machine.files import write_atomically
from dfkd_cli.networks import EagerNetwork, ScriptNetwork
from dfkd_cli.networks.classifier import Classifier, InputSpec
from dfkd_cli.networks.fixed_batch import largest_difference
from dfkd_cli.networks.returned import Returned, to_logits
from dfkd_cli.tasks import per_image

TOLERANCE = 1e-4  # relative to the largest output; rounding of other kernels is smaller, wrong weights differ by more
COMPARED_IMAGES = 64
COMPARED_DENSE = 8  # images of a segmentation network, which have as many answers as pixels
SAME_PIXELS = 0.999  # share with the same class; rounding decides where two classes are equally likely
MIXED_BATCHES = (1, 3)  # batch sizes for a file with a dynamic batch; the remaining images are one batch more


@dataclass(frozen=True)
class ExportJob:
    """Options of `dfkd export`."""

    source: str
    load: LoadOptions
    to: FormName
    out: Path | None  # None: the name of the source with the suffix of the form
    overwrite: bool
    dynamic_batch: bool
    with_preprocessing: bool
    class_map: bool = False  # write the class of each pixel in place of the logits of a segmentation network


@dataclass(frozen=True)
class Comparison:
    """Differences between the exported file and PyTorch on some images."""

    images: str  # their name
    count: int
    largest_difference: float  # absolute, over all outputs
    largest_output: float
    same_top1: int  # images with the same predicted class, in nearly all pixels of a segmentation network


@dataclass(frozen=True)
class ExportReport:
    """Description of the written file; the JSON document of `dfkd export --json`."""

    path: str
    form: FormName
    file_bytes: int
    input_shape: tuple[str | int, ...]
    num_classes: int
    returned: Returned  # form of the outputs of the file and the network
    class_map: bool  # True: the output is the class of each pixel, [B, H, W]
    preprocessing: bool  # True: the file takes images in [0, 1]; False: images normalised with mean and std
    mean: tuple[float, ...]
    std: tuple[float, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


def export(job: ExportJob) -> ExportReport:
    """Write `job.source` as a file of the form `job.to`.

    Raises UsageError for invalid options, and DfkdError when the export fails or its result differs from the network;
    then no file is written.
    """
    form = EXPORT_FORMS[job.to]
    path = job.out or _default_path(job.source, form.suffix)
    check_place(path, job)
    form.require()
    classifier = load_classifier(job.source, job.load)
    dense = classifier.spec.task == "segmentation"
    if job.class_map and not dense:
        raise UsageError(f"--class-map is for segmentation networks; {job.source} has {classifier.task.answers}")
    module = _exported_module(classifier, job)
    example = random_probe(classifier.spec, 2 if job.dynamic_batch else 1).images
    try:
        content = form.write(module, example, job.dynamic_batch, facts(classifier, job))
        run = form.open(content)
    except Exception as error:  # exporters raise errors of any type
        raise DfkdError(f"{job.source} cannot be exported as {job.to}: {first_line(error)}{_hint(job)}") from error
    count = COMPARED_DENSE if dense else COMPARED_IMAGES
    probes = (random_probe(classifier.spec, count), synthetic_probe(job.source, classifier.spec, count))
    comparisons = tuple(compare(classifier, run, probe, job) for probe in probes)
    _write(path, content)
    spec = classifier.spec
    return ExportReport(
        path=str(path),
        form=job.to,
        file_bytes=len(content),
        input_shape=("batch" if job.dynamic_batch else 1, *spec.size),
        num_classes=spec.num_classes,
        returned=classifier.returned,
        class_map=job.class_map,
        preprocessing=job.with_preprocessing,
        mean=spec.mean,
        std=spec.std,
        comparisons=comparisons,
        notes=classifier.origin.notes,
    )


def facts(classifier: Classifier, job: ExportJob) -> dict[str, Any]:
    """Return the metadata of the file. Its mean and std are those that the caller must apply: 0 and 1 for none."""
    spec: InputSpec = classifier.spec
    channels = spec.size[0]
    return {
        "version": __version__,
        "arch": classifier.origin.arch,
        "parameters": classifier.parameter_count(),
        "num_classes": spec.num_classes,
        "returned": classifier.returned,
        "input_size": list(spec.size),
        "mean": [0.0] * channels if job.with_preprocessing else list(spec.mean),
        "std": [1.0] * channels if job.with_preprocessing else list(spec.std),
        **({"class_map": True} if job.class_map else {}),
        **asdict(spec.preprocessing),
        **({"assumed": list(spec.assumed)} if spec.assumed else {}),
        **({"class_names": list(spec.class_names)} if spec.class_names else {}),
        "source_sha256": classifier.origin.sha256,
    }


def compare(classifier: Classifier, run: Callable[[Tensor], Tensor], probe: Probe, job: ExportJob) -> Comparison:
    """Run both on the same images. Raises DfkdError when the outputs differ by more than rounding."""
    normalised = (probe.images - classifier.mean) / classifier.std
    inputs = probe.images if job.with_preprocessing else normalised
    sizes = (*MIXED_BATCHES, len(inputs) - sum(MIXED_BATCHES)) if job.dynamic_batch else (1,) * len(inputs)
    with torch.no_grad():
        expected = classifier.task.at_size(classifier.network(normalised), normalised)
        try:
            outputs = torch.cat([run(piece.contiguous()) for piece in inputs.split([s for s in sizes if s > 0])])
        except Exception as error:  # runtimes raise errors of any type
            raise DfkdError(f"the exported {job.to} file fails: {first_line(error)}{_hint(job)}") from error
    if job.class_map:
        return _compare_classes(to_logits(expected, classifier.returned).argmax(dim=1), outputs, probe, job)
    largest = float(expected.abs().max())
    difference = float((outputs - expected).abs().max()) if outputs.shape == expected.shape else float("nan")
    if not difference <= TOLERANCE * largest:  # true for NaN too
        if largest_difference(classifier.network(normalised), expected) > TOLERANCE:
            raise DfkdError(
                f"{job.source} gives different outputs for the same images because part of it is random: no file can "
                "be compared with it; nothing was written"
            )
        raise DfkdError(
            f"the exported {job.to} file does not compute the same as the network: on {probe.name}, outputs up to "
            f"{largest:.3g} differ by {difference:.3g}; nothing was written"
        )
    classes, expected_classes = (to_logits(each, classifier.returned).argmax(dim=1) for each in (outputs, expected))
    same = _same_images(classes, expected_classes)
    return Comparison(probe.name, len(inputs), difference, largest, same)


def _same_images(classes: Tensor, expected: Tensor) -> int:
    """Return the number of images with the same predicted class, or with the same classes in nearly all pixels."""
    return int((per_image((classes == expected).float()) >= SAME_PIXELS).sum())


def _compare_classes(expected: Tensor, classes: Tensor, probe: Probe, job: ExportJob) -> Comparison:
    """Compare class maps [N, H, W]. Raises DfkdError when the pixels of an image have other classes."""
    same = _same_images(classes, expected) if classes.shape == expected.shape else 0
    if same < len(expected):
        raise DfkdError(
            f"the exported {job.to} file does not compute the same as the network: on {probe.name}, {same} of "
            f"{len(expected)} class maps are the same; nothing was written"
        )
    different = float((classes != expected).float().mean())
    return Comparison(probe.name, len(expected), different, float(expected.max()), same)


def check_place(path: Path, job: ExportJob) -> None:
    """Raise UsageError when `path` cannot be written, is the network itself, or exists without `overwrite`."""
    weights = weights_file(job.source)
    if weights is not None and path.resolve() == weights.resolve():
        raise UsageError(f"{path} is the network itself; name another file with --out")
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}")
    if path.exists() and not job.overwrite:
        raise UsageError(f"{path} exists; use --overwrite or another --out")


def _default_path(source: str, suffix: str) -> Path:
    weights = weights_file(source)
    if weights is not None and weights.is_symlink() and len(weights.readlink().parts) == 1:
        weights = weights.with_name(weights.readlink().name)  # model.safetensors of a student, for timm
    return weights.with_suffix(suffix) if weights else Path(source.rpartition(":")[2].rpartition("/")[2] + suffix)


def _exported_module(classifier: Classifier, job: ExportJob) -> nn.Module:
    """Return the module to write: images in [0, 1], or normalised images -> the network's own outputs."""
    network = classifier.network
    if isinstance(network, ScriptNetwork):
        if job.to != "torchscript":
            raise UsageError(
                f"{job.source} is TorchScript, which can only be exported as torchscript; "
                "export the checkpoint it was made from"
            )
        # ScriptNetwork runs a rewritten graph, which cannot be saved; the archive's own module can.
        network = EagerNetwork(network.module, job.load.output, num_classes=classifier.spec.num_classes)
    spec = classifier.spec
    if not job.with_preprocessing and spec.task == "classification":
        return network
    if not job.with_preprocessing:  # a segmentation network's logits are enlarged all the same
        spec = replace(spec, mean=(0.0,) * spec.size[0], std=(1.0,) * spec.size[0])
    # Not `classifier` itself, which would convert probabilities to logits.
    whole = Classifier(network, spec, classifier.origin).eval()
    return ClassMap(whole, classifier.returned) if job.class_map else whole


class ClassMap(nn.Module):
    """A segmentation network with the class of each pixel as its output."""

    def __init__(self, whole: nn.Module, returned: Returned):
        super().__init__()
        self.whole, self.returned = whole, returned

    def forward(self, images: Tensor) -> Tensor:
        """Return the classes [B, H, W] of images [B, C, H, W]."""
        return to_logits(self.whole(images), self.returned).argmax(dim=1)


def _hint(job: ExportJob) -> str:
    return "; try without --dynamic-batch" if job.dynamic_batch else ""


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise DfkdError(f"cannot write {path}: {error.strerror}; nothing was written") from error
