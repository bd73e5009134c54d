"""`dfkd inspect` without its flags: what is known of a teacher before anything is trained."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from dfkd_cli.loading import LoadOptions, load_classifier
from dfkd_cli.loading.weights_file import file_bytes
from dfkd_cli.methods import METHODS
from dfkd_cli.networks import EagerNetwork, input_gradient_reaches
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.cost import macs_per_image
from dfkd_cli.recipe.listing import list_recipes


@dataclass(frozen=True)
class RecipeFit:
    """Whether a recipe can work with this teacher."""

    name: str
    fits: bool
    reason: str | None  # what the teacher lacks; None when it fits
    pool: bool  # whether it learns from pictures that the user names with --pool


@dataclass(frozen=True)
class BatchNorm:
    """What the running statistics tell of the training images."""

    layers: int  # calls of a layer in one forward
    channels: int  # of all layers together
    untrained_layers: int  # those that still hold mean 0 and variance 1


@dataclass(frozen=True)
class Inspection:
    """What `dfkd inspect --json` prints."""

    source: str  # what the user typed
    kind: str
    arch: str | None
    sha256: str | None  # None when the weights did not come from one file
    file_bytes: int | None
    classes: int
    input_size: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]
    std: tuple[float, ...]
    found: dict[str, str]  # which of these came from where
    parameters: int
    macs: int  # multiply-accumulate operations of one image
    norm_layers: dict[str, int]  # kind -> count; of a program, only what keeps running statistics
    batchnorm: BatchNorm
    embedding: int | None  # size of what the last linear layer receives; None when there is no such layer to see
    stages: tuple[tuple[int, ...], ...]  # channels, height, width of the feature maps, large to small
    input_gradient: bool  # whether images can be made from it
    recipes: tuple[RecipeFit, ...]
    notes: tuple[str, ...]


def inspect_teacher(source: str, options: LoadOptions) -> Inspection:
    """Loads the teacher as a run would and looks at it. Raises UsageError and TeacherError as loading does."""
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
        input_size=spec.size,
        mean=spec.mean,
        std=spec.std,
        found=origin.found,
        parameters=teacher.parameter_count(),
        macs=macs_per_image(teacher),
        norm_layers=_norm_layers(teacher),
        batchnorm=_batchnorm(teacher),
        embedding=None if seen.embedding is None else seen.embedding.shape[1],
        stages=tuple(tuple(stage.shape[1:]) for stage in seen.stages),
        input_gradient=gradient,
        recipes=tuple(_fit(entry.name, entry.method, teacher, gradient) for entry in list_recipes().recipes),
        notes=origin.notes,
    )


def _norm_layers(teacher: Classifier) -> dict[str, int]:
    if isinstance(teacher.network, EagerNetwork):
        return dict(Counter(type(layer).__name__ for layer in teacher.network.module.modules() if _is_norm(layer)))
    return {"BatchNorm": len(teacher.norm_statistics)} if teacher.norm_statistics else {}


def _is_norm(layer: nn.Module) -> bool:
    # By name: timm and others have normalisations of their own that share no base class.
    return "Norm" in type(layer).__name__ and not any(True for _ in layer.children())


def _batchnorm(teacher: Classifier) -> BatchNorm:
    statistics = teacher.norm_statistics
    untrained = sum(bool((layer.mean == 0).all() and (layer.var == 1).all()) for layer in statistics)
    return BatchNorm(len(statistics), sum(len(layer.mean) for layer in statistics), untrained)


def _fit(name: str, method: str, teacher: Classifier, input_gradient: bool) -> RecipeFit:
    needs = METHODS[method].needs
    missing = needs.missing(teacher)
    if not needs.pool and not input_gradient:
        missing.append("a gradient that reaches the images")
    return RecipeFit(name, not missing, f"needs {' and '.join(missing)}" if missing else None, needs.pool)
