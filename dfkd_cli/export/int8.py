"""An exported ONNX file in 8 bits: calibrated on half of the images, accepted by its agreement on the other half."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.errors import DfkdError, UsageError, first_line
from dfkd_cli.evaluation.agreement import Agreement, measure_agreement, with_logits
from dfkd_cli.evaluation.calibration import Calibration
from dfkd_cli.export.quantisation import Quantiser, Ranges, WeightBits
from dfkd_cli.networks.classifier import Classifier, InputSpec
from dfkd_cli.networks.onnx import OnnxClassifier, OnnxNetwork, OnnxSession

FEWEST_IMAGES = 20  # half of them for the calibration
FEWEST_SEGMENTED = 4  # the same, where every pixel has an answer
MOST_SKIPPED = 0.5  # share of the layers that `skip` may leave in single precision
_BATCH = 32
CONTRAST = 2.0  # of the copies of the images that the ranges are also taken from
_TRIED_IMAGES = 128  # on which the effect of each layer is measured
_TOLERANCE = 1e-9
# Probability of the predicted class from which an image counts. Synthetic images lie closer to the border between two
# classes than real ones, where rounding decides: benchmarks/notes/int8.md.
CERTAIN = 0.6
FEWEST_CERTAIN = 10  # images; with fewer, all images count

Skip = Literal["none", "auto"]
Batches = list[tuple[Tensor, Tensor]]  # images [B, C, H, W] in [0, 1], and the network's logits for them


@dataclass(frozen=True)
class Int8Job:
    """Options of a file of 8 bits."""

    ranges: Ranges = "minmax"  # how the range of an activation follows from its values
    weight_bits: WeightBits = 7  # 8: only for processors that do not saturate
    skip: Skip = "none"  # auto: leave sensitive layers in single precision
    min_agreement: float = 0.98  # with the network in single precision, a fraction of images


@dataclass(frozen=True)
class Int8Report:
    """How a file of 8 bits was made, and how far it agrees with the network in single precision."""

    ranges: Ranges
    weight_bits: WeightBits
    images: str  # "synthetic" or "pool"
    calibrated_on: int  # images
    compared_on: int  # other images, of which the network is certain
    agreement: float  # fraction of these for which both predict the same class
    kl: float  # mean divergence KL(single precision || 8 bits) on them, in nats
    min_agreement: float
    all_images: int  # of the other half, certain or not
    agreement_on_all: float
    layers: int  # that can be quantised
    in_fp32: tuple[str, ...]  # names of layers that stay in single precision
    fp32_bytes: int  # size of the file in single precision

    def missed(self) -> str:
        """Return one sentence for a file that is not accepted."""
        hint = "" if self.in_fp32 else ", try --int8-skip auto or other --int8-ranges"
        return (
            f"the int8 file agrees with the network on {self.agreement:.4f} of {self.compared_on} images, below "
            f"--min-agreement {self.min_agreement:g}{hint}; nothing was written"
        )


def quantise(
    content: bytes, classifier: Classifier, calibration: Calibration, job: Int8Job, preprocessing: bool
) -> tuple[bytes, Int8Report]:
    """Return an ONNX file in 8 bits and its report. `content` is the file of `classifier` in single precision.

    With `preprocessing` the file takes images in [0, 1]. Raises UsageError for too few images, and DfkdError when
    onnxruntime cannot quantise or run the file. The agreement may be below `job.min_agreement`.
    """
    images = _suited(calibration.images, classifier.spec)
    calibrated, compared = (_batches(classifier, images[start::2]) for start in (0, 1))
    open_file = _opener(classifier, preprocessing)
    try:
        network = open_file(content)
        shown = list(calibrated)
        if calibration.kind == "synthetic":
            shown += _batches(classifier, with_contrast(images[::2]))
        quantiser = Quantiser(content, _inputs(network, shown), job.ranges, job.weight_bits)
        skipped = _sensitive_layers(quantiser, open_file, _certain(calibrated), job) if job.skip == "auto" else ()
        quantised = quantiser.quantise(skipped)
        on_all, measured = (measure_agreement(open_file(quantised), on) for on in (compared, _certain(compared)))
    except DfkdError:
        raise
    except Exception as error:  # onnxruntime raises errors of any type
        raise DfkdError(f"{classifier.origin.source} cannot be quantised: {first_line(error)}") from error
    return quantised, Int8Report(
        ranges=job.ranges,
        weight_bits=job.weight_bits,
        images=calibration.kind,
        calibrated_on=len(images[::2]),
        compared_on=measured.images,
        agreement=measured.agreement,
        kl=measured.kl,
        min_agreement=job.min_agreement,
        all_images=on_all.images,
        agreement_on_all=on_all.agreement,
        layers=len(quantiser.layers),
        in_fp32=skipped,
        fp32_bytes=len(content),
    )


def _suited(images: Tensor, spec: InputSpec) -> Tensor:
    """Return uint8 images [N, C, H, W] in the size of the network. Raises UsageError for too few or others.

    A run on a segmentation network makes parts of images, which are enlarged: the file has one size of images.
    """
    segments = spec.task == "segmentation"
    fewest = FEWEST_SEGMENTED if segments else FEWEST_IMAGES
    if len(images) < fewest:
        raise UsageError(f"there are {len(images)} calibration images; --int8 needs {fewest} or more")
    if segments and images.shape[1] == spec.size[0]:
        return F.interpolate(images.float(), spec.size[1:], mode="bilinear").round().byte()
    if images.shape[1:] != spec.size:
        sizes = ("x".join(map(str, size)) for size in (images.shape[1:], spec.size))
        raise UsageError("the calibration images are {}, but the network takes {}".format(*sizes))
    return images


def with_contrast(images: Tensor) -> Tensor:
    """Return uint8 images [N, C, H, W] with twice the contrast about the mean of each channel of an image.

    Generated images can have less contrast than real ones, whose activations would then leave the ranges.
    """
    mean = images.float().mean(dim=(2, 3), keepdim=True)
    return (mean + CONTRAST * (images.float() - mean)).round().clamp(0, 255).byte()


def _batches(classifier: Classifier, images: Tensor) -> Batches:
    """Return batches of uint8 images as images in [0, 1], with the network's logits."""
    shown = (batch.float() / 255.0 for batch in images.split(_BATCH))
    return list(with_logits(classifier, ((batch, batch) for batch in shown)))


def _certain(batches: Batches) -> Batches:
    """Return the images of which the network is certain, for several answers per image on average; all if few are."""
    chosen = []
    for images, logits in batches:
        confidence = logits.softmax(1).amax(1).flatten(1).mean(1) if logits.ndim > 2 else logits.softmax(1).amax(1)
        kept = confidence >= CERTAIN
        if kept.any():
            chosen.append((images[kept], logits[kept]))
    return chosen if sum(len(images) for images, _ in chosen) >= FEWEST_CERTAIN else batches


def _opener(classifier: Classifier, preprocessing: bool) -> Callable[[bytes], OnnxClassifier]:
    """Return a function that opens the content of an ONNX file as a network of images in [0, 1]."""
    spec = classifier.spec
    if preprocessing:
        spec = dataclasses.replace(spec, mean=(0.0,) * spec.size[0], std=(1.0,) * spec.size[0])

    output = classifier.network.output if isinstance(classifier.network, OnnxNetwork) else None

    def open_file(content: bytes) -> OnnxClassifier:
        session = OnnxSession(content, torch.get_num_threads())
        return OnnxClassifier(session, output, spec, classifier.origin, classifier.returned)

    return open_file


def _inputs(network: OnnxClassifier, batches: Batches) -> Iterator[np.ndarray]:
    """Yield the images as the file takes them, in its own batch size if it has one."""
    size = network.session.batch_size
    for images, _ in batches:
        normalised = (images - network.mean) / network.std
        for piece in normalised.split(size or len(images)):
            if size is None or len(piece) == size:
                yield np.ascontiguousarray(piece.numpy())


def _sensitive_layers(
    quantiser: Quantiser, open_file: Callable[[bytes], OnnxClassifier], batches: Batches, job: Int8Job
) -> tuple[str, ...]:
    """Return the layers to leave in single precision, the most sensitive first.

    A layer is the more sensitive, the smaller the divergence is with it alone in single precision. Layers are added in
    this order until the agreement reaches the bar by its standard error, because it is measured again on other images.
    """

    def measured(skip: list[str], on: Batches) -> Agreement:
        return measure_agreement(open_file(quantiser.quantise(skip)), on)

    bar, count = job.min_agreement, sum(len(images) for images, _ in batches)
    wanted = min(1.0, bar + math.sqrt(bar * (1.0 - bar) / count)) - _TOLERANCE
    if measured([], batches).agreement >= wanted:
        return ()
    few = batches[: math.ceil(_TRIED_IMAGES / _BATCH)]
    alone = {name: measured([name], few).kl for name in quantiser.layers}
    skipped: list[str] = []
    for name in sorted(alone, key=alone.__getitem__)[: math.floor(MOST_SKIPPED * len(alone))]:
        skipped.append(name)
        if measured(skipped, batches).agreement >= wanted:
            break
    return tuple(skipped)
