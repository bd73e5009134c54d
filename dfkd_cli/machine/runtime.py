"""How a run computes: device, autocast type, memory format and compilation, decided once and used everywhere."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)
Precision = Literal["auto", "fp32", "bf16"]
CLEARLY_FASTER = 1.3  # ratio from which bf16 is worth its rounding
TIMED_ROUNDS = 30  # about 0.2 s in all where bf16 is fast
TIMED_SECONDS = 0.3  # fewer rounds where it is not: a processor that only imitates bf16 takes ten times as long for it
TIMED_IMAGES = {"cpu": 64, "cuda": 2048}  # a GPU needs longer to start a convolution than to compute 64 images


@dataclass(frozen=True)
class Runtime:
    """Where and how tensors are computed. `notes` collects what a user should know, one sentence each."""

    device: torch.device
    dtype: torch.dtype = torch.float32  # of autocast; float32 means no autocast
    compiles: bool = False
    notes: list[str] = field(default_factory=list)

    def autocast(self) -> AbstractContextManager:
        """The context that every forward runs in."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def place(self, module: Module) -> Module:
        """The same module on the device, its convolution weights channels last."""
        return module.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def images(self, images: Tensor) -> Tensor:
        """The same images [B, C, H, W], channels last: what convolutions are fastest on."""
        return images.contiguous(memory_format=torch.channels_last)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function compiled, when this run compiles; it stays as it is where compilation fails."""
        return _CompiledOrEager(function, self.notes) if self.compiles else function


class _CompiledOrEager:
    """Compiles at the first call; a function that cannot be compiled here runs as written, and a note says so."""

    def __init__(self, function: Callable[..., Any], notes: list[str]):
        # The compiler's import warns about CUDA tools on a machine without a GPU, which is no news to the user.
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
        except Exception as error:  # the compiler can fail in any way; a fault of the function itself shows below
            result = self.eager(*args)
            self.call = self.eager
            self.notes.append(f"not compiled, which costs speed only: {type(error).__name__}")
        self.proven = True
        return result


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The autocast type for a precision; "auto" measures one convolution in both and takes bf16 if clearly faster."""
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    seconds = _conv_seconds((torch.float32, torch.bfloat16), device)
    return torch.bfloat16 if seconds[0] / seconds[1] > CLEARLY_FASTER else torch.float32


def _conv_seconds(dtypes: tuple[torch.dtype, ...], device: torch.device) -> list[float]:
    """Per type, the shortest of several timings of one typical convolution."""
    convolutions = [_convolution(dtype, device) for dtype in dtypes]

    def once(convolution: Callable[[], Tensor]) -> float:
        start = time.perf_counter()
        convolution()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    def in_turns() -> list[float]:  # so that what else the machine does meets all of them
        return [once(convolution) for convolution in convolutions]

    in_turns()  # chooses the kernels
    end = time.perf_counter() + TIMED_SECONDS
    rounds = [in_turns()]
    while len(rounds) < TIMED_ROUNDS and time.perf_counter() < end:
        rounds.append(in_turns())
    return [min(times) for times in zip(*rounds, strict=True)]


def _convolution(dtype: torch.dtype, device: torch.device) -> Callable[[], Tensor]:
    count = TIMED_IMAGES[device.type]
    images = torch.ones(count, 32, 32, 32, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(32, 32, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return lambda: F.conv2d(images, weight, padding=1)
