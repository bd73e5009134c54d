"""Recognises operations of a traced graph that are layers: which type, which options, which weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import fx

from dfkd_cli.networks.operations import DROPOUTS

aten: Any = torch.ops.aten

Arguments = dict[str, Any]  # of an operation, by the names in its schema, defaults included


class LayerCall(NamedTuple):
    """An operation as the call of a layer."""

    kind: str  # a key of LAYERS
    options: dict[str, Any]
    tensors: dict[str, Any]  # nodes by the names in the layer; absent tensors are left out
    source: fx.Node  # the layer's input
    transposed: bool = False  # the weight's node has the shape [in, out]


def find_layer_call(node: fx.Node) -> LayerCall | None:
    """Return the operation as a layer's call, or None when it is not one."""
    read = _READERS.get(node.target) if node.op == "call_function" else None
    return None if read is None else read(node, arguments_by_name(node))


def arguments_by_name(node: fx.Node) -> Arguments:
    """Return the arguments of an aten operation by name; tracing leaves out those that equal their defaults."""
    target: Any = node.target
    values = {argument.name: argument.default_value for argument in target._schema.arguments}
    return values | dict(zip(values, node.args, strict=False)) | node.kwargs


def _rank(node: fx.Node) -> int:
    return node.meta["val"].ndim


def _given(**tensors: Any) -> dict[str, Any]:
    return {name: value for name, value in tensors.items() if value is not None}


def _per_dimension(value: Any, dimensions: int) -> Any:
    if isinstance(value, str):
        return value
    lengths = tuple(value)
    return lengths * dimensions if len(lengths) == 1 else lengths


def _convolution(node: fx.Node, values: Arguments) -> LayerCall | None:
    dimensions = values["weight"].meta["val"].ndim - 2
    transposed = values.get("transposed", "transpose" in str(node.target))
    options: dict[str, Any] = {
        name: _per_dimension(values[name], dimensions) for name in ("stride", "padding", "dilation")
    }
    options["groups"] = values["groups"]
    if transposed:
        options["output_padding"] = _per_dimension(values["output_padding"], dimensions)
    source = values["input"]
    if _rank(source) != dimensions + 2:
        return None  # without a batch dimension
    kind = f"Conv{'Transpose' if transposed else ''}{dimensions}d"
    return LayerCall(kind, options, _given(weight=values["weight"], bias=values["bias"]), source)


def _linear(node: fx.Node, values: Arguments) -> LayerCall:
    return LayerCall("Linear", {}, _given(weight=values["weight"], bias=values["bias"]), values["input"])


def _addmm(node: fx.Node, values: Arguments) -> LayerCall | None:
    if values["beta"] != 1 or values["alpha"] != 1 or _rank(values["self"]) != 1:
        return None
    return LayerCall("Linear", {}, {"weight": values["mat2"], "bias": values["self"]}, values["mat1"], True)


def _matmul(node: fx.Node, values: Arguments) -> LayerCall | None:
    weight = values["other"] if "other" in values else values["mat2"]
    return None if _rank(weight) != 2 else LayerCall("Linear", {}, {"weight": weight}, values["self"], True)


def _running_norm(name: str) -> Callable[[fx.Node, Arguments], LayerCall | None]:
    def read(node: fx.Node, values: Arguments) -> LayerCall | None:
        source = values["input"]
        mean, var = values["running_mean"], values["running_var"]
        dimensions = max(_rank(source) - 2, 1)
        if (mean is None) != (var is None) or (values["weight"] is None) != (values["bias"] is None):
            return None
        options = {
            "num_features": source.meta["val"].shape[1],
            "eps": values["eps"],
            "momentum": values["momentum"] or 0.1,  # in evaluation mode torch records 0 for a cumulative average
        }
        tensors = _given(weight=values["weight"], bias=values["bias"], running_mean=mean, running_var=var)
        return LayerCall(f"{name}{dimensions}d", options, tensors, source)

    return read


def _layer_norm(name: str) -> Callable[[fx.Node, Arguments], LayerCall | None]:
    def read(node: fx.Node, values: Arguments) -> LayerCall | None:
        if values["weight"] is None and values.get("bias") is not None:
            return None
        options = {"normalized_shape": tuple(values["normalized_shape"]), "eps": values["eps"]}
        return LayerCall(name, options, _given(weight=values["weight"], bias=values.get("bias")), values["input"])

    return read


def _group_norm(node: fx.Node, values: Arguments) -> LayerCall | None:
    if (values["weight"] is None) != (values["bias"] is None):
        return None
    source = values["input"]
    groups = values.get("num_groups", values.get("group"))
    options = {"num_groups": groups, "num_channels": source.meta["val"].shape[1], "eps": values["eps"]}
    return LayerCall("GroupNorm", options, _given(weight=values["weight"], bias=values["bias"]), source)


def _prelu(node: fx.Node, values: Arguments) -> LayerCall | None:
    weight = values["weight"]
    return LayerCall("PReLU", {}, {"weight": weight}, values["self"]) if _rank(weight) == 1 else None


def _dropout(name: str, by_channel: bool = False) -> Callable[[fx.Node, Arguments], LayerCall | None]:
    def read(node: fx.Node, values: Arguments) -> LayerCall | None:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        rank = _rank(source)
        kind = f"{name}{rank - 2}d" if by_channel and rank in (3, 4, 5) else name
        return LayerCall(kind, {"p": values["p"]}, {}, source)

    return read


# Their layers return the first of several results; the others are used by the gradient only.
FIRST_RESULTS = {
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit_no_training.default,
    aten._batch_norm_impl_index.default,
    aten.native_layer_norm.default,
    aten.native_group_norm.default,
    aten.native_dropout.default,
}
_CONVOLUTIONS = (
    *(getattr(getattr(aten, f"conv{n}d"), form) for n in (1, 2, 3) for form in ("default", "padding")),
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
    aten.convolution.default,
    aten._convolution.default,
    aten._convolution.deprecated,
    aten._convolution_mode.default,
)
_DROPOUT_LAYERS = {
    "dropout": _dropout("Dropout"),
    "feature_dropout": _dropout("Dropout", by_channel=True),
    "alpha_dropout": _dropout("AlphaDropout"),
    "feature_alpha_dropout": _dropout("FeatureAlphaDropout"),
}
_READERS: dict[Any, Callable[[fx.Node, Arguments], LayerCall | None]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    aten.linear.default: _linear,
    aten.addmm.default: _addmm,
    aten.mm.default: _matmul,
    aten.matmul.default: _matmul,
    aten.batch_norm.default: _running_norm("BatchNorm"),
    aten.native_batch_norm.default: _running_norm("BatchNorm"),
    aten._batch_norm_impl_index.default: _running_norm("BatchNorm"),
    aten._native_batch_norm_legit.default: _running_norm("BatchNorm"),
    aten._native_batch_norm_legit_no_training.default: _running_norm("BatchNorm"),
    aten.instance_norm.default: _running_norm("InstanceNorm"),
    aten.layer_norm.default: _layer_norm("LayerNorm"),
    aten.native_layer_norm.default: _layer_norm("LayerNorm"),
    aten.rms_norm.default: _layer_norm("RMSNorm"),
    aten.group_norm.default: _group_norm,
    aten.native_group_norm.default: _group_norm,
    aten.prelu.default: _prelu,
    aten.native_dropout.default: _dropout("Dropout"),
    **{getattr(aten, name).default: _DROPOUT_LAYERS[name] for name in DROPOUTS},
    **{getattr(aten, f"{name}_").default: _DROPOUT_LAYERS[name] for name in DROPOUTS},
}
