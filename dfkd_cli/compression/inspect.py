"""Inspect a teacher: its input, its layers, and the recipes that fit it."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.loading.assumptions import estimate
from dfkd_cli.loading.input_conventions import Convention, describe
from dfkd_cli.loading.weights_file import file_bytes
from dfkd_cli.methods import METHODS
from dfkd_cli.networks import EagerNetwork, input_gradient_reaches
from dfkd_cli.networks.classifier import Classifier, Preprocessing
from dfkd_cli.networks.cost import macs_per_image
from dfkd_cli.recipe.listing import list_recipes
from dfkd_cli.students.from_teacher import Shares, possible_shares


@dataclass(frozen=True)
class RecipeFit:
    """Whether a recipe fits a teacher."""

    name: str
    fits: bool
    reason: str | None  # what the teacher lacks; None when the recipe fits
    pool: bool  # whether the recipe learns from unlabelled images (--pool)


@dataclass(frozen=True)
class BatchNorm:
    """The BatchNorm layers with running statistics."""

    layers: int  # calls in one forward
    channels: int  # in all calls together
    untrained_layers: int  # with the initial mean 0 and variance 1


@dataclass(frozen=True)
class InputEstimate:
    """The inputs that the network was trained on, as estimated from its first BatchNorm."""

    mean: tuple[float, ...]  # per channel, after every normalisation outside the network
    std: float  # over all channels
    mean_residual: float  # of the filters' means, in units of their std
    spread_residual: float  # of the filters' variances, relative to these
    trusted: bool  # whether the estimate explains the statistics of the BatchNorm
    convention: Convention


@dataclass(frozen=True)
class Inspection:
    """What `dfkd inspect --json` prints."""

    source: str  # as the user wrote it
    kind: str
    arch: str | None
    sha256: str | None  # None when the weights are not in one file
    file_bytes: int | None
    classes: int
    class_names: tuple[str, ...]  # by class number; empty when nothing states them
    input_size: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing: Preprocessing
    found: dict[str, str]  # name of a value -> where it was found
    parameters: int
    macs: int  # multiply-accumulate operations of one image
    norm_layers: dict[str, int]  # class -> count; in an archive, only layers with running statistics
    batchnorm: BatchNorm
    input_statistics: InputEstimate | None  # None where the first BatchNorm shows nothing
    embedding: int | None  # inputs of the last linear layer; None when no such layer is visible
    stages: tuple[tuple[int, ...], ...]  # (channels, height, width) of the feature maps, large to small
    shares: Shares  # of students that are made from the teacher
    input_gradient: bool  # whether a gradient reaches the images, so that images can be generated
    recipes: tuple[RecipeFit, ...]
    notes: tuple[str, ...]
    task: str  # classification or segmentation


def inspect_teacher(source: str, options: LoadOptions) -> Inspection:
    """Load the teacher as a run does and return what is found. Raises UsageError and TeacherError as loading does."""
    teacher = load_classifier(source, options)
    spec, origin = teacher.spec, teacher.origin
    gradient = input_gradient_reaches(teacher.network, spec.size)
    with torch.no_grad():
        seen = teacher.observe(torch.rand(2, *spec.size))
    return Inspection(
        source=source,
        kind=origin.kind,
        arch=origin.arch,
        sha256=origin.sha256,
        file_bytes=file_bytes(source),
        classes=spec.num_classes,
        class_names=spec.class_names,
        input_size=spec.size,
        mean=spec.mean,
        std=spec.std,
        preprocessing=spec.preprocessing,
        found=origin.found,
        parameters=teacher.parameter_count(),
        macs=macs_per_image(teacher),
        norm_layers=_norm_layers(teacher),
        batchnorm=_batchnorm(teacher),
        input_statistics=_input_estimate(teacher),
        embedding=None if seen.embedding is None else seen.embedding.shape[1],
        stages=tuple(tuple(stage.shape[1:]) for stage in seen.stages),
        shares=possible_shares(teacher, "response"),
        input_gradient=gradient,
        recipes=tuple(_fit(entry.name, entry.method, teacher, gradient) for entry in list_recipes().recipes),
        notes=origin.notes,
        task=spec.task,
    )


def _norm_layers(teacher: Classifier) -> dict[str, int]:
    """Return the number of normalisation layers by class."""
    if isinstance(teacher.network, EagerNetwork):
        return dict(Counter(type(layer).__name__ for layer in teacher.network.module.modules() if _is_norm(layer)))
    return {"BatchNorm": len(teacher.norm_statistics)} if teacher.norm_statistics else {}


def _is_norm(layer: nn.Module) -> bool:
    # By name: the normalisation layers of timm and other libraries share no base class.
    return "Norm" in type(layer).__name__ and not any(True for _ in layer.children())


def _batchnorm(teacher: Classifier) -> BatchNorm:
    statistics = teacher.norm_statistics
    untrained = sum(bool((layer.mean == 0).all() and (layer.var == 1).all()) for layer in statistics)
    return BatchNorm(len(statistics), sum(len(layer.mean) for layer in statistics), untrained)


def _input_estimate(teacher: Classifier) -> InputEstimate | None:
    statistics = estimate(teacher.network, teacher.spec.size)
    return None if statistics is None else InputEstimate(*statistics, convention=describe(statistics))


def _fit(name: str, method: str, teacher: Classifier, input_gradient: bool) -> RecipeFit:
    needs = METHODS[method].needs
    missing = needs.missing(teacher)
    if not needs.pool and not input_gradient:
        missing.append("a gradient that reaches the images")
    return RecipeFit(name, not missing, f"needs {' and '.join(missing)}" if missing else None, needs.pool)
