"""Finds the image size that a network accepts by trial forwards on noise."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfkd_cli.networks.base import Network
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.outputs import pick_logits
from dfkd_cli.tasks import SEGMENTATION, TASKS, Task

Size = tuple[int, int, int]  # channels, height, width
_Accepts = Callable[[Size], bool]

SIDES = (8, 16, 24, 28, 32, 48, 64, 96, 112, 128, 160, 192, 224, 256, 299, 384)
_USUAL_DENSE = (256,)  # of segmentation networks
_BATCH = 2
_CHANNELS = (3, 1)  # tried where no convolution shows them
# Sides between which the growth of feature maps shows the strides: the first pair that fits is used.
_COMPARED = ((128, 192), (96, 192), (64, 128), (32, 64), (224, 256))


class FoundSize(NamedTuple):
    """A size that the network accepts."""

    size: Size
    downsampling: int | None  # total stride; None where this is the only tried size that fits


def find_input_size(
    module: Any, make_network: Callable[[Size], Network], channels: int | None, output: str | None, classes: int | None
) -> FoundSize | str:
    """Return a square size that the network accepts, or the reason why none is found.

    Small sizes are tried first. A network with a fixed head accepts only one. Where several fit, the result is the
    usual size of images for the network's strides. `channels` are those of the weights, where they are known.
    """
    counts = [channels] if channels is not None else list(dict.fromkeys([*_first_convolution(module), *_CHANNELS]))

    def built(task: Task, size: Size) -> bool:
        return _passes(lambda images: make_network(size)(images), task, size, None, None)

    def direct(task: Task, size: Size) -> bool:
        return _passes(module, task, size, output, classes)

    # Archives of one batch size fail directly; their network finds this batch size, which takes more forwards. A
    # classifier with a convolution as its head can answer for each pixel of larger images: it is not meant to.
    for task in TASKS.values():
        for accepts in (direct, built) if isinstance(module, nn.Module) else (built,):
            for count in counts:
                if first := next(_fitting(partial(accepts, task), count, SIDES), None):
                    return _choose(
                        partial(accepts, task), make_network, first, _USUAL_DENSE if task is SEGMENTATION else ()
                    )
    listed = " or ".join(map(str, counts))
    return f"the network accepts no square image of {SIDES[0]} to {SIDES[-1]} pixels with {listed} channels"


def _fitting(accepts: _Accepts, channels: int, sides: Iterable[int]) -> Iterator[Size]:
    return (size for side in sides if accepts(size := (channels, side, side)))


def _choose(
    accepts: _Accepts, make_network: Callable[[Size], Network], first: Size, preferred: tuple[int, ...]
) -> FoundSize | str:
    """Return `first`, the smallest size that fits, if no other does, else a preferred or usual size."""
    channels, smallest = first[:2]
    larger = [side for side in SIDES if side > smallest]
    # Some networks accept only multiples of their stride, so the next size alone does not show a fixed head.
    others = {*larger[:1], *[side for side in larger if side % smallest == 0][:1]}
    if next(_fitting(accepts, channels, sorted(others)), None) is None:
        return FoundSize(first, None)
    downsampling = _downsampling(accepts, make_network, channels)
    if downsampling is None:
        return "the network accepts images of several sizes, and its strides cannot be observed"
    usual = preferred or _usual_sides(channels, downsampling)
    sides = [*usual, *[side for side in SIDES if side > usual[-1]], smallest]
    return FoundSize(next(_fitting(accepts, channels, sides)), downsampling)


def _usual_sides(channels: int, downsampling: int) -> tuple[int, ...]:
    if channels == 1 and downsampling <= 4:
        return (28, 32)
    if downsampling <= 8:
        return (32,)
    return (64,) if downsampling <= 16 else (224,)


def _downsampling(accepts: _Accepts, make_network: Callable[[Size], Network], channels: int) -> int | None:
    """Return the pixels of the image per pixel of the smallest feature map that grows with the image."""
    for small, large in _COMPARED:
        if len(sizes := list(_fitting(accepts, channels, (small, large)))) < 2:
            continue
        network = make_network(sizes[0])
        with torch.no_grad():
            before, after = (network.observe(noise(network, _BATCH, size)).stages for size in sizes)
        growths = [b.shape[-1] - a.shape[-1] for a, b in zip(before, after, strict=False)]
        if strides := [round((large - small) / growth) for growth in growths if growth > 0]:
            return max(strides)
    return None


@torch.no_grad()
def _passes(call: Callable[[Tensor], object], task: Task, size: Size, output: str | None, classes: int | None) -> bool:
    """Return whether `call` gives finite outputs of the shape of this task."""
    try:
        images = torch.randn(_BATCH, *size, generator=torch.Generator().manual_seed(0))
        logits = pick_logits(call(images), _BATCH, output, classes)
    except Exception:  # a network from outside can raise anything for a size that it does not accept
        return False
    return task.accepts(logits, _BATCH) and bool(torch.isfinite(logits).all())


def _first_convolution(module: Any) -> list[int]:
    """Return the channels of the first convolution's weight, as a list of one; empty where none is seen."""
    weights = module.state_dict().values() if isinstance(module, nn.Module) else module.state_dict.values()
    return next(([weight.shape[1]] for weight in weights if isinstance(weight, Tensor) and weight.ndim == 4), [])
