"""Compares the outputs of an exported file with those of the network."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_cli.errors import DfkdError, first_line
from dfkd_cli.export.job import ExportJob
from dfkd_cli.export.probes import Probe
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.fixed_batch import largest_difference
from dfkd_cli.networks.pixels import per_image
from dfkd_cli.networks.returned import to_logits

TOLERANCE = 1e-4  # relative to the largest output; rounding of other kernels is smaller, wrong weights differ by more
OWN_ROUNDING = 10.0  # times the change that inputs changed in their last digit cause, where that is more than TOLERANCE
LARGEST_ROUNDING = 1e-2  # relative to the largest output; a larger limit could hide wrong weights
COMPARED_IMAGES = 64
COMPARED_DENSE = 8  # images of a segmentation network, which have as many answers as pixels
SAME_PIXELS = 0.999  # share with the same class; rounding decides where two classes are equally likely
MIXED_BATCHES = (1, 3)  # batch sizes for a file with a dynamic batch; the remaining images are one batch more


@dataclass(frozen=True)
class Comparison:
    """Differences between the exported file and PyTorch on some images."""

    images: str  # their name
    count: int
    largest_difference: float  # absolute, over all outputs
    largest_output: float
    same_top1: int  # images with the same predicted class, in nearly all pixels of a segmentation network


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
            raise DfkdError(f"the exported {job.to} file fails: {first_line(error)}{batch_hint(job)}") from error
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
        rounding = OWN_ROUNDING * _own_rounding(classifier, normalised, expected)
        if not difference <= min(rounding, LARGEST_ROUNDING * largest):
            raise DfkdError(
                f"the exported {job.to} file does not compute the same as the network: on {probe.name}, outputs up to "
                f"{largest:.3g} differ by {difference:.3g}; nothing was written"
            )
    classes, expected_classes = (to_logits(each, classifier.returned).argmax(dim=1) for each in (outputs, expected))
    same = _same_images(classes, expected_classes)
    return Comparison(probe.name, len(inputs), difference, largest, same)


def _own_rounding(classifier: Classifier, normalised: Tensor, expected: Tensor) -> float:
    """Return the largest change of the outputs when the inputs change in their last digit."""
    noise = torch.randn(normalised.shape, generator=torch.Generator().manual_seed(0))
    changed = normalised * (1.0 + torch.finfo(torch.float32).eps * noise)
    with torch.no_grad():
        outputs = classifier.task.at_size(classifier.network(changed), changed)
    return float((outputs - expected).abs().max())


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


def batch_hint(job: ExportJob) -> str:
    """Return what to try when an export with a dynamic batch fails, empty without one."""
    return "; try without --dynamic-batch" if job.dynamic_batch else ""
