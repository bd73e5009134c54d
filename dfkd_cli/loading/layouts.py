"""Inputs that are no float images [B, C, H, W]: channels last, rows of pixels, whole numbers, single images, lists."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfkd_cli.errors import TeacherError
from dfkd_cli.loading.trial import Shape, Trial

_LARGEST_CHANNELS = 4  # of an image; a first length above it and a last one below is [H, W, C]

# How a rearranged network is written: as TorchScript, as a torch.export archive, as ONNX.
_TRACE = "torch.jit.save(torch.jit.trace({}, torch.rand(64, {})), 'teacher.pt')"
_EXPORT = (
    "torch.export.save(torch.export.export({}, (torch.rand(2, {}),), "
    "dynamic_shapes=({{0: torch.export.Dim.DYNAMIC}},)), 'teacher.pt2')"
)

_ONNX = "torch.onnx.export({}, (torch.rand(2, {}),), 'network.onnx', dynamo=True)"


class _Layout(NamedTuple):
    """An input that a rearrangement of images gives."""

    name: str
    shape: Callable[[Shape], Shape | None]  # (C, H, W) -> shape of one input, None where there is none
    rearrange: str  # Python code of a module: images [B, C, H, W] -> this input


CHANNELS_LAST = _Layout(
    "its images with the channels last, [B, H, W, C]",
    lambda size: (*size[1:], size[0]),
    "torchvision.ops.Permute([0, 2, 3, 1])",
)
_LAYOUTS = (
    CHANNELS_LAST,
    _Layout("each image as one row of numbers, [B, C*H*W]", lambda s: (s[0] * s[1] * s[2],), "torch.nn.Flatten()"),
    _Layout(
        "its images without an axis of channels, [B, H, W]",
        lambda size: size[1:] if size[0] == 1 else None,
        "torch.nn.Flatten(1, 2)",
    ),
)


def is_channels_last(size: tuple[Any, ...]) -> bool:
    """Return whether lengths (C, H, W), as a graph or a flag gives them, are (H, W, C); a length can be symbolic."""
    first, second, last = (length if isinstance(length, int) else _LARGEST_CHANNELS + 1 for length in size)
    return min(first, second) > _LARGEST_CHANNELS >= last


def channels_last(size: tuple[Any, ...], module: object) -> TeacherError:
    """Return the error of a network for images of lengths (H, W, C), with the code that exports it rightly.

    `module` is what the network was loaded from, None for an ONNX file.
    """
    lengths = [length if isinstance(length, int) else 224 for length in size]
    sentence = _rearranged(CHANNELS_LAST, (lengths[2], *lengths[:2]), module)
    return TeacherError(f"the network cannot be used as it is: {sentence}")


def as_images(dimensions: int) -> str:
    """Return what to do with a program whose input has a number of dimensions other than 4."""
    if dimensions == 2:
        return "export `torch.nn.Sequential(torch.nn.Flatten(), model)`, which takes a batch of images [B, C, H, W]"
    return "export a module that takes a batch of images [B, C, H, W]"


def other_layout(trial: Trial, accepts: Callable[[Shape], bool], size: Shape) -> str | None:
    """Return a sentence about the input that the network takes in place of images of `size` (C, H, W), None if none."""
    for layout in _LAYOUTS:
        shape = layout.shape(size)
        if shape is not None and shape != size and accepts(shape):
            return _rearranged(layout, size, trial.module)
    return None


def other_input(trial: Trial, size: Shape) -> str | None:
    """Return the same about other types than a batch of floats."""
    if not isinstance(trial.module, nn.Module):
        return None
    pixels = torch.randint(0, 256, (2, *size), generator=torch.Generator().manual_seed(0))
    if any(_runs(trial.module, pixels.to(kind)) for kind in (torch.uint8, torch.int64)):
        return (
            "it takes pixels as whole numbers, which pass no gradient: export a module that takes float images, "
            "without this conversion"
        )
    if _runs(trial.module, pixels[0].float()):
        return "it takes one image [C, H, W] at a time: export a module that takes a batch of images [B, C, H, W]"
    return None


def _rearranged(layout: _Layout, size: Shape, module: object) -> str:
    model = f"torch.nn.Sequential({layout.rearrange}, model).eval()"
    line, where = _EXPORT, ""
    if isinstance(module, torch.jit.ScriptModule):
        line, where = _TRACE, ", where `model` is the network or `torch.jit.load(FILE)`"
    elif module is None:
        line, where = _ONNX, ", or, from TensorFlow, with tf2onnx's --inputs-as-nchw"
    code = line.format(model, ", ".join(map(str, size)))
    return f"it takes {layout.name}, and dfkd gives images [B, C, H, W]; export it with `{code}`{where}"


@torch.no_grad()
def _runs(call: Callable[[Tensor], object], inputs: Tensor) -> bool:
    try:
        call(inputs)
    except Exception:  # a network from outside can raise anything
        return False
    return True
