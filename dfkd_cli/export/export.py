"""Exports a network as a file, and compares the file with the network before it is written."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dfkd_cli.config.version import __version__
from dfkd_cli.errors import DfkdError, GateMissedError, UsageError, first_line
from dfkd_cli.evaluation.calibration import Calibration
from dfkd_cli.export.comparison import COMPARED_DENSE, COMPARED_IMAGES, Comparison, batch_hint, compare
from dfkd_cli.export.forms import EXPORT_FORMS, ExportForm, FormName
from dfkd_cli.export.int8 import Int8Report, quantise
from dfkd_cli.export.job import ExportJob
from dfkd_cli.export.probes import random_probe, synthetic_probe
from dfkd_cli.loading import load_classifier
from dfkd_cli.loading.onnx import load_onnx
from dfkd_cli.loading.sniff import is_onnx
from dfkd_cli.loading.weights_file import weights_file
from dfkd_cli.machine.files import write_atomically
from dfkd_cli.networks import EagerNetwork, ScriptNetwork
from dfkd_cli.networks.classifier import Classifier, InputSpec
from dfkd_cli.networks.graphs.trainable import TrainableError, trainable_module
from dfkd_cli.networks.returned import Returned, to_logits

Calibrate = Callable[[Classifier], Calibration]  # returns images for the calibration of a network


@dataclass(frozen=True)
class ExportReport:
    """Description of the written file; the JSON document of `dfkd export --json`."""

    path: str | None  # None: not written, because --min-agreement was missed
    form: FormName
    file_bytes: int
    input_shape: tuple[str | int, ...]
    num_classes: int
    returned: Returned  # form of the outputs of the file and the network
    class_map: bool  # True: the output is the class of each pixel, [B, H, W]
    preprocessing: bool  # True: the file takes images in [0, 1]; False: images normalised with mean and std
    mean: tuple[float, ...]
    std: tuple[float, ...]
    comparisons: tuple[Comparison, ...]  # of the file in single precision; none for a network that is an ONNX file
    int8: Int8Report | None  # None: single precision
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Exported:
    """The content of a file in single precision, and the network that it is compared with."""

    classifier: Classifier
    content: bytes
    batch: str | int  # images that it takes
    preprocessing: bool
    comparisons: tuple[Comparison, ...] = ()


def export(job: ExportJob, calibrate: Calibrate | None = None) -> ExportReport:
    """Write `job.source` as a file of the form `job.to`. A file of 8 bits needs `calibrate`.

    Raises UsageError for invalid options, GateMissedError when a file of 8 bits agrees with the network on too few
    images, and DfkdError when the export fails or its result differs from the network; then no file is written.
    """
    form = EXPORT_FORMS[job.to]
    _check_options(job)
    path = job.out or _default_path(job.source, form.suffix if job.int8 is None else f".int8{form.suffix}")
    check_place(path, job)
    form.require()
    exported = _own_content(job) if is_onnx(job.source) and job.int8 is not None else _export(job, form)
    if job.int8 is None or calibrate is None:
        _write(path, exported.content)
        return _report(job, exported, path, len(exported.content), None)
    calibration = calibrate(exported.classifier)
    content, int8 = quantise(exported.content, exported.classifier, calibration, job.int8, exported.preprocessing)
    report = _report(job, exported, path, len(content), int8)
    if int8.agreement < job.int8.min_agreement:
        raise GateMissedError(int8.missed(), replace(report, path=None))
    _write(path, content)
    return report


def _export(job: ExportJob, form: ExportForm) -> _Exported:
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
        raise DfkdError(f"{job.source} cannot be exported as {job.to}: {first_line(error)}{batch_hint(job)}") from error
    count = COMPARED_DENSE if dense else COMPARED_IMAGES
    probes = (random_probe(classifier.spec, count), synthetic_probe(job.source, classifier.spec, count))
    comparisons = tuple(compare(classifier, run, probe, job) for probe in probes)
    batch = "batch" if job.dynamic_batch else 1
    return _Exported(classifier, content, batch, job.with_preprocessing, comparisons)


def _own_content(job: ExportJob) -> _Exported:
    """Return the network in an ONNX file, whose batch size and preprocessing stay as they are."""
    for flag, given in (("--dynamic-batch", job.dynamic_batch), ("--with-preprocessing", job.with_preprocessing)):
        if given:
            raise UsageError(f"{flag} does not apply to {job.source}, which is an ONNX file already; leave it out")
    import onnx

    classifier = load_onnx(job.source, job.load)
    try:
        content = onnx.load(job.source).SerializeToString()  # with weights that lie beside the file
    except Exception as error:  # more than 2 GiB, which protobuf cannot write
        raise DfkdError(f"{job.source} cannot be read with its weights: {first_line(error)}") from error
    return _Exported(classifier, content, classifier.session.batch_size or "batch", preprocessing=False)


def _report(job: ExportJob, exported: _Exported, path: Path, size: int, int8: Int8Report | None) -> ExportReport:
    spec = exported.classifier.spec
    return ExportReport(
        path=str(path),
        form=job.to,
        file_bytes=size,
        input_shape=(exported.batch, *spec.size),
        num_classes=spec.num_classes,
        returned=exported.classifier.returned,
        class_map=job.class_map,
        preprocessing=exported.preprocessing,
        mean=spec.mean,
        std=spec.std,
        comparisons=exported.comparisons,
        int8=int8,
        notes=exported.classifier.origin.notes,
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


def _check_options(job: ExportJob) -> None:
    if job.int8 is not None and job.to != "onnx":
        raise UsageError(f"--int8 with --to {job.to}: files of 8 bits are written as ONNX only; use --to onnx")
    if job.int8 is not None and job.class_map:
        raise UsageError("--class-map with --int8: files of 8 bits are compared by their logits; leave it out")


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
    return weights.with_suffix(suffix) if weights else Path(source.rpartition(":")[2].rpartition("/")[2] + suffix)


def _exported_module(classifier: Classifier, job: ExportJob) -> nn.Module:
    """Return the module to write: images in [0, 1], or normalised images -> the network's own outputs."""
    network = classifier.network
    if isinstance(network, ScriptNetwork):
        # ScriptNetwork runs a rewritten graph, which cannot be saved; the archive's own module can.
        module = network.module if job.to == "torchscript" else _layers_of(classifier, job)
        network = EagerNetwork(module, job.load.output, num_classes=classifier.spec.num_classes)
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
        self.whole = whole
        self.returned: Returned = returned

    def forward(self, images: Tensor) -> Tensor:
        """Return the classes [B, H, W] of images [B, C, H, W]."""
        return to_logits(self.whole(images), self.returned).argmax(dim=1)


def _layers_of(classifier: Classifier, job: ExportJob) -> nn.Module:
    """Return the network in a TorchScript archive as a module of layers, which other forms can be written from."""
    try:
        return trainable_module(classifier.network, classifier.spec.size).eval().requires_grad_(False)
    except TrainableError as error:
        raise UsageError(
            f"{job.source} is TorchScript that can only be exported as torchscript: {error.reason}; "
            "export the checkpoint it was made from"
        ) from error


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise DfkdError(f"cannot write {path}: {error.strerror}; nothing was written") from error
