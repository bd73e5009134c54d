"""The operations that a student made from an archive may consist of: functions of tensors, without any side effect.

None of them reads or writes files, runs code, or draws random numbers. In-place operations change activations only.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch

# "name" is the overload `default`.
_ATEN = """
abs acos add.Scalar add.Tensor add_.Scalar add_.Tensor addbmm addcdiv addcmul addmm amax amin any.dim all.dim
arange arange.start arange.start_step argmax argmin atan atan2 baddbmm bitwise_and.Tensor bitwise_not bitwise_or.Tensor
bmm broadcast_tensors cat ceil celu chunk clamp clamp.Tensor clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clone
col2im constant_pad_nd contiguous cos cumsum cumprod diagonal diff div.Scalar div.Tensor div.Tensor_mode div_.Tensor
div_.Scalar einsum elu elu_ eq.Scalar eq.Tensor erf exp exp_ expand expand_as expm1 flatten.using_ints flip floor
floor_divide fmod.Scalar full full_like gather ge.Scalar ge.Tensor gelu gelu_ glu gt.Scalar gt.Tensor hardsigmoid
hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ im2col index.Tensor index_select
layer_norm group_norm instance_norm batch_norm native_layer_norm native_group_norm rms_norm
le.Scalar le.Tensor leaky_relu leaky_relu_ lerp.Scalar lerp.Tensor linalg_vector_norm linear linspace log log1p
log_sigmoid log_softmax.int _log_softmax logical_and logical_not logical_or logit logsumexp lt.Scalar lt.Tensor
masked_fill.Scalar masked_fill.Tensor masked_fill_.Scalar matmul max max.dim max.other maximum mean mean.dim meshgrid
meshgrid.indexing min min.dim min.other minimum mish mish_ mm movedim.int movedim.intlist mul.Scalar mul.Tensor
mul_.Scalar mul_.Tensor mv mT mH matrix_H narrow ne.Scalar ne.Tensor neg new_full new_ones new_zeros norm.ScalarOpt_dim
numpy_T one_hot ones ones_like outer pad permute pixel_shuffle pixel_unshuffle channel_shuffle pow.Scalar
pow.Tensor_Scalar pow.Tensor_Tensor pow_.Scalar prelu _prelu_kernel prod.dim_int
reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 relu6_ relu_ remainder.Scalar remainder.Tensor
repeat repeat_interleave.self_int replication_pad1d replication_pad2d replication_pad3d
reshape reshape_as roll round rsqrt rsqrt_ rsub.Scalar scalar_tensor scaled_dot_product_attention select.int
selu selu_ sigmoid sigmoid_ sign silu silu_ sin slice.Tensor softmax.int _softmax softplus split.Tensor
split_with_sizes sqrt square squeeze squeeze.dim squeeze.dims stack std.dim std.correction sub.Scalar sub.Tensor
sub_.Scalar sub_.Tensor sum sum.dim_IntList swapaxes t tan tanh tanh_ threshold to.device to.dtype to.dtype_layout
_to_copy transpose.int tril triu type_as unbind.int unfold unflatten.int unsafe_chunk unsafe_split.Tensor unsqueeze
unsqueeze_ _unsafe_view upsample_bicubic2d upsample_bicubic2d.vec upsample_bilinear2d upsample_bilinear2d.vec
upsample_linear1d upsample_linear1d.vec upsample_nearest1d upsample_nearest1d.vec upsample_nearest2d
upsample_nearest2d.vec var.correction var.dim var_mean.correction view view_as where.ScalarOther where.ScalarSelf
where.self zeros zeros_like _upsample_bicubic2d_aa _upsample_bicubic2d_aa.vec _upsample_bilinear2d_aa
_upsample_bilinear2d_aa.vec
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d
max_pool2d_with_indices max_pool3d grid_sampler grid_sampler_2d affine_grid_generator cosine_similarity
conv1d conv2d conv2d.padding conv3d conv_transpose2d.input convolution _convolution dropout
"""
# Other names of the same operations, which a trace keeps.
_ALIASES = {
    **{"concat": "cat", "concatenate": "cat", "clip": "clamp", "clip_": "clamp_", "absolute": "abs", "negative": "neg"},
    **{"multiply": "mul", "multiply_": "mul_", "divide": "div", "divide_": "div_", "true_divide": "div"},
    **{"subtract": "sub", "subtract_": "sub_", "moveaxis": "movedim", "arctan": "atan", "special_expit": "sigmoid"},
    **{"greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne"},
    **{"swapdims": "transpose.int", "special_softmax": "softmax.int", "special_log_softmax": "log_softmax.int"},
}
METHODS = ("size",)
_ATTRIBUTES = {"device": getattr}  # the device of a tensor, where a new one is made


def _lookup() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {"item": operator.getitem, "times": operator.mul}
    for name in _ATEN.split():
        packet, _, overload = name.partition(".")
        known = getattr(torch.ops.aten, packet, None)
        # A name that this version of torch does not have cannot occur in a graph that it traces.
        operation = getattr(known, overload or "default", None)
        if operation is not None:
            found[name] = operation
    return found


OPERATIONS = _lookup()
ALLOWED = frozenset({*OPERATIONS, *METHODS, *_ATTRIBUTES})
_NAMES = {operation: name for name, operation in OPERATIONS.items()} | {
    function: name for name, function in _ATTRIBUTES.items()
}


def usual_form(target: Any) -> Any:
    """Return the operation that `target` is another name of, or `target` itself."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return target
    packet, _, overload = _ALIASES.get(target._schema.name.removeprefix("aten::"), "").partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or target._overloadname, target) if packet else target


def makes_tensor(target: Any) -> bool:
    """Return whether an operation makes a tensor without another one, so that it has to be given the device."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return False
    kinds = {argument.name: str(argument.type) for argument in schema.arguments}
    return "device" in kinds and "Tensor" not in kinds.values()


def operation_name(target: Any) -> str | None:
    """Return the name of the target of a call in a graph; None when it is not among the operations."""
    return target if target in METHODS else _NAMES.get(target)
