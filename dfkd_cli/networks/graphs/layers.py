"""Layers that a student made from an archive consists of: their options, and their construction from tensor shapes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Size, nn

Shapes = Mapping[str, Size]  # of a layer's own tensors, by their names in the layer


class LayerKind(NamedTuple):
    """One type of layer; its sizes follow from its tensors, everything else from its options."""

    options: tuple[str, ...]  # attributes of the layer
    build: Callable[[dict[str, Any], Shapes], nn.Module]


def _convolution(layer: Any, dimensions: int, transposed: bool = False) -> LayerKind:
    def build(options: dict[str, Any], shapes: Shapes) -> nn.Module:
        first, second, *kernel = shapes["weight"]
        if len(kernel) != dimensions:
            raise ValueError(f"a weight of shape {list(shapes['weight'])}")
        channels = (first, second * options["groups"]) if transposed else (second * options["groups"], first)
        return layer(*channels, tuple(kernel), bias="bias" in shapes, **options)

    options = ("stride", "padding", "dilation", "groups")
    return LayerKind((*options, "output_padding") if transposed else options, build)


def _linear(options: dict[str, Any], shapes: Shapes) -> nn.Module:
    outputs, inputs = shapes["weight"]
    return nn.Linear(inputs, outputs, bias="bias" in shapes)


def _running_norm(layer: Any) -> LayerKind:
    def build(options: dict[str, Any], shapes: Shapes) -> nn.Module:
        sized = shapes.get("weight", shapes.get("running_mean", (options["num_features"],)))
        return layer(
            *sized,
            eps=options["eps"],
            momentum=options["momentum"],
            affine="weight" in shapes,
            track_running_stats="running_mean" in shapes,
        )

    return LayerKind(("num_features", "eps", "momentum"), build)


def _layer_norm(options: dict[str, Any], shapes: Shapes) -> nn.Module:
    shape = shapes.get("weight", options["normalized_shape"])
    return nn.LayerNorm(list(shape), options["eps"], "weight" in shapes, bias="bias" in shapes)


def _rms_norm(options: dict[str, Any], shapes: Shapes) -> nn.Module:
    return nn.RMSNorm(list(shapes.get("weight", options["normalized_shape"])), options["eps"], "weight" in shapes)


def _group_norm(options: dict[str, Any], shapes: Shapes) -> nn.Module:
    channels = shapes["weight"] if "weight" in shapes else (options["num_channels"],)
    return nn.GroupNorm(options["num_groups"], *channels, eps=options["eps"], affine="weight" in shapes)


def _prelu(options: dict[str, Any], shapes: Shapes) -> nn.Module:
    return nn.PReLU(*shapes["weight"])


def _dropout(layer: Any) -> LayerKind:
    return LayerKind(("p",), lambda options, shapes: layer(options["p"]))


LAYERS: dict[str, LayerKind] = {
    "Conv1d": _convolution(nn.Conv1d, 1),
    "Conv2d": _convolution(nn.Conv2d, 2),
    "Conv3d": _convolution(nn.Conv3d, 3),
    "ConvTranspose1d": _convolution(nn.ConvTranspose1d, 1, transposed=True),
    "ConvTranspose2d": _convolution(nn.ConvTranspose2d, 2, transposed=True),
    "ConvTranspose3d": _convolution(nn.ConvTranspose3d, 3, transposed=True),
    "Linear": LayerKind((), _linear),
    "BatchNorm1d": _running_norm(nn.BatchNorm1d),
    "BatchNorm2d": _running_norm(nn.BatchNorm2d),
    "BatchNorm3d": _running_norm(nn.BatchNorm3d),
    "InstanceNorm1d": _running_norm(nn.InstanceNorm1d),
    "InstanceNorm2d": _running_norm(nn.InstanceNorm2d),
    "InstanceNorm3d": _running_norm(nn.InstanceNorm3d),
    "LayerNorm": LayerKind(("normalized_shape", "eps"), _layer_norm),
    "RMSNorm": LayerKind(("normalized_shape", "eps"), _rms_norm),
    "GroupNorm": LayerKind(("num_groups", "num_channels", "eps"), _group_norm),
    "PReLU": LayerKind((), _prelu),
    "Dropout": _dropout(nn.Dropout),
    "Dropout1d": _dropout(nn.Dropout1d),
    "Dropout2d": _dropout(nn.Dropout2d),
    "Dropout3d": _dropout(nn.Dropout3d),
    "AlphaDropout": _dropout(nn.AlphaDropout),
    "FeatureAlphaDropout": _dropout(nn.FeatureAlphaDropout),
}


def build_layer(kind: str, options: dict[str, Any], shapes: Shapes) -> nn.Module:
    """Return a layer on the meta device, in training mode, whose tensors have these shapes.

    Raises KeyError, TypeError or ValueError when options and shapes do not fit together.
    """
    with torch.device("meta"):
        layer = LAYERS[kind].build(options, shapes)
    built = {name: tensor.shape for name, tensor in layer.state_dict().items()}
    if built != dict(shapes):
        raise ValueError(f"a {kind} has tensors of the shapes {built}, not {dict(shapes)}")
    return layer


def layer_options(layer: nn.Module) -> tuple[str, dict[str, Any]]:
    """Return the type and the options of a layer; raise KeyError when its type is not in the table."""
    kind = type(layer).__name__
    return kind, {name: getattr(layer, name) for name in LAYERS[kind].options}
