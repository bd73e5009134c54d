"""How a run computes: device, autocast type, memory format and compilation."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_cli.machine.world.world import World

Module = TypeVar("Module", bound=nn.Module)
Precision = Literal["auto", "fp32", "bf16"]
CLEARLY_FASTER = 1.3  # ratio from which bf16 is worth its rounding
TIMED_REPEATS = 30  # about 0.2 s in total where bf16 is fast
TIMED_SECONDS = 0.3  # fewer repeats where bf16 is emulated, which takes ten times as long
TIMED_IMAGES = {"cpu": 64, "cuda": 2048}  # on a GPU the launch of a convolution takes longer than 64 images


@dataclass(frozen=True)
class Runtime:
    """Where and how tensors are computed. `notes` collects sentences for the user.

    `world` is the processes that share the computation.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32  # of autocast; float32: no autocast
    compiles: bool = False
    notes: list[str] = field(default_factory=list)
    world: World = field(default_factory=World)

    def autocast(self) -> AbstractContextManager:
        """Return the autocast context for forward passes."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def place(self, module: Module) -> Module:
        """Move the module to the device with convolution weights in channels-last format, and return it."""
        return module.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def images(self, images: Tensor) -> Tensor:
        """Return the images [B, C, H, W] in channels-last format, in which convolutions are fastest."""
        return images.contiguous(memory_format=torch.channels_last)

    def upload(self, values: Tensor) -> Tensor:
        """Return a tensor of the CPU on the device. The copy to a GPU runs beside the computation."""
        if self.device.type == "cuda":
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the compiled function, or the function itself when the run does not compile."""
        return _CompiledOrEager(function, self.notes) if self.compiles else function


class _CompiledOrEager:
    """A function that is compiled at its first call. If that fails it runs uncompiled, and a note is added."""

    def __init__(self, function: Callable[..., Any], notes: list[str]):
        # The compiler's import warns about missing CUDA tools on a machine without a GPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        self.eager = function
        self.notes = notes
        self.call = torch.compile(function, dynamic=False)
        self.proven = False

    def __call__(self, *args: Any) -> Any:
        if self.proven:
            return self.call(*args)
        try:
            result = self.call(*args)
        except Exception as error:  # the compiler can fail in any way; an error of the function itself is raised below
            result = self.eager(*args)
            self.call = self.eager
            self.notes.append(f"not compiled, which costs speed only: {type(error).__name__}")
        self.proven = True
        return result


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the autocast type of a precision; "auto" is bf16 if a measured convolution is clearly faster with it."""
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    seconds = _conv_seconds((torch.float32, torch.bfloat16), device)
    return torch.bfloat16 if seconds[0] / seconds[1] > CLEARLY_FASTER else torch.float32


def _conv_seconds(dtypes: tuple[torch.dtype, ...], device: torch.device) -> list[float]:
    """Return the shortest of several timings of a typical convolution, one per type."""
    convolutions = [_convolution(dtype, device) for dtype in dtypes]

    def once(convolution: Callable[[], Tensor]) -> float:
        start = time.perf_counter()
        convolution()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    def in_turns() -> list[float]:  # so that other load on the machine affects all types
        return [once(convolution) for convolution in convolutions]

    in_turns()  # selects the kernels
    end = time.perf_counter() + TIMED_SECONDS
    repeats = [in_turns()]
    while len(repeats) < TIMED_REPEATS and time.perf_counter() < end:
        repeats.append(in_turns())
    return [min(times) for times in zip(*repeats, strict=True)]


def _convolution(dtype: torch.dtype, device: torch.device) -> Callable[[], Tensor]:
    """Return a convolution of images [B, 32, 32, 32] in this type."""
    count = TIMED_IMAGES[device.type]
    images = torch.ones(count, 32, 32, 32, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(32, 32, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return lambda: F.conv2d(images, weight, padding=1)
