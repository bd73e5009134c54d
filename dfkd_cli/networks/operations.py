"""Operations that networks are observed by, in eager code, exported programs and TorchScript graphs."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

TRAINING_MODE_NOTE = (
    "the network was saved in training mode: its BatchNorm and dropout layers are switched to evaluation mode"
)
QUANTIZED = (
    "The network is quantized (torch.ao.quantization), and quantized layers pass no gradient: it can be evaluated, but "
    "images are generated only from the network from before `convert` or `quantize_dynamic`."
)


class Multiplication(NamedTuple):
    """An operation that multiplies an activation by weights."""

    kind: str  # "linear" or "conv"
    activation: int  # position of the activation among the arguments


class Norm(NamedTuple):
    """A BatchNorm operation: positions of some of its arguments."""

    mean: int
    var: int
    training: int | None  # None: the operation has no training flag


MULTIPLICATIONS: dict[str, Multiplication] = {  # by the name in torch.ops.aten
    "linear": Multiplication("linear", 0),
    "addmm": Multiplication("linear", 1),
    "matmul": Multiplication("linear", 0),
    "mm": Multiplication("linear", 0),
    "conv1d": Multiplication("conv", 0),
    "conv2d": Multiplication("conv", 0),
    "conv3d": Multiplication("conv", 0),
    "convolution": Multiplication("conv", 0),
    "_convolution": Multiplication("conv", 0),
}
NORMS: dict[str, Norm] = {
    "batch_norm": Norm(3, 4, 5),
    "native_batch_norm": Norm(3, 4, 5),
    "cudnn_batch_norm": Norm(3, 4, 5),
    "miopen_batch_norm": Norm(3, 4, 5),
    "_batch_norm_impl_index": Norm(3, 4, 5),
    "_native_batch_norm_legit": Norm(3, 4, 5),
    "_native_batch_norm_legit_no_training": Norm(3, 4, None),
}
DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")  # each also in place, as `dropout_`
DROPOUT_FLAG = 2  # position of the training flag

_FUNCTIONS: dict[str, tuple[Callable, ...]] = {
    "linear": (F.linear,),
    "addmm": (torch.addmm,),
    "matmul": (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__),
    "mm": (torch.mm, torch.Tensor.mm),
    "conv1d": (F.conv1d,),
    "conv2d": (F.conv2d,),
    "conv3d": (F.conv3d,),
}
FUNCTION_MULTIPLICATIONS: dict[Callable, Multiplication] = {
    function: MULTIPLICATIONS[name] for name, functions in _FUNCTIONS.items() for function in functions
}
