"""Finds the image size that a network accepts by trial forwards on noise."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch

from dfkd_cli.loading.trial import Trial
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.tasks import CLASSIFICATION, SEGMENTATION, Task

Size = tuple[int, int, int]  # channels, height, width
_Accepts = Callable[[Size], bool]

SIDES = (8, 16, 24, 28, 32, 48, 64, 96, 112, 128, 160, 192, 224, 256, 299, 384)
_SMALLEST_USUAL = 28  # pixels of the side of images to classify, MNIST's
_USUAL_DENSE = (256,)  # of segmentation networks
_BATCH = 2
# Sides between which the growth of feature maps shows the strides: the first pair that fits is used.
_COMPARED = ((128, 192), (96, 192), (64, 128), (32, 64), (224, 256))


class FoundSize(NamedTuple):
    """A size that the network accepts."""

    size: Size
    only: bool  # whether no other tried size fits
    downsampling: int | None = None  # total stride; None where it cannot be observed or does not matter


def find_input_size(trial: Trial, channels: Sequence[int], accepts: Callable[..., bool]) -> FoundSize | None:
    """Return a square size that `accepts`, a method of `trial`, finds accepted; None when it is none of `SIDES`.

    Small sizes are tried first. A network with a fixed head accepts only one. Where several fit, the result is the
    usual size of images for the network's strides. `channels` are the numbers of channels to try.
    """
    # A classifier with a convolution as its head can answer for each pixel of larger images: it is not meant to.
    for task in trial.tasks:
        for count in channels:
            found = _find(trial, task, count, accepts)
            if found is not None and task is CLASSIFICATION and _is_one_answer(found):
                # The smallest images have one answer per pixel too, when the answers are as far apart as their size.
                dense = _find(trial, SEGMENTATION, count, accepts) if SEGMENTATION in trial.tasks else None
                return dense or found
            if found is not None:
                return found
    return None


def _find(trial: Trial, task: Task, channels: int, accepts: Callable[..., bool]) -> FoundSize | None:
    fits = partial(accepts, task=task)
    first = next(_fitting(fits, channels, SIDES), None)
    return None if first is None else _choose(fits, trial, first, _USUAL_DENSE if task is SEGMENTATION else ())


def _is_one_answer(found: FoundSize) -> bool:
    """Return whether a size is smaller than usual images, and nothing shows that the network also takes others."""
    return found.downsampling is None and found.size[1] < _SMALLEST_USUAL


def _fitting(accepts: _Accepts, channels: int, sides: Iterable[int]) -> Iterator[Size]:
    return (size for side in sides if accepts(size := (channels, side, side)))


def _choose(accepts: _Accepts, trial: Trial, first: Size, preferred: tuple[int, ...]) -> FoundSize:
    """Return `first`, the smallest size that fits, if no other does, else a preferred or usual size."""
    channels, smallest = first[:2]
    larger = [side for side in SIDES if side > smallest]
    # Some networks accept only multiples of their stride, so the next size alone does not show a fixed head.
    others = {*larger[:1], *[side for side in larger if side % smallest == 0][:1]}
    if next(_fitting(accepts, channels, sorted(others)), None) is None:
        return FoundSize(first, only=True)
    downsampling = _downsampling(accepts, trial, channels)
    if downsampling is None:
        return FoundSize(first, only=False)
    usual = preferred or _usual_sides(channels, downsampling)
    sides = [*usual, *[side for side in SIDES if side > usual[-1]], smallest]
    return FoundSize(next(_fitting(accepts, channels, sides)), False, downsampling)


def _usual_sides(channels: int, downsampling: int) -> tuple[int, ...]:
    if channels == 1 and downsampling <= 4:
        return (28, 32)
    if downsampling <= 8:
        return (32,)
    return (64,) if downsampling <= 16 else (224,)


def _downsampling(accepts: _Accepts, trial: Trial, channels: int) -> int | None:
    """Return the pixels of the image per pixel of the smallest feature map that grows with the image."""
    for small, large in _COMPARED:
        if len(sizes := list(_fitting(accepts, channels, (small, large)))) < 2:
            continue
        network = trial.make_network(sizes[0])
        with torch.no_grad():
            before, after = (network.observe(noise(network, _BATCH, size)).stages for size in sizes)
        growths = [b.shape[-1] - a.shape[-1] for a, b in zip(before, after, strict=False)]
        if strides := [round((large - small) / growth) for growth in growths if growth > 0]:
            return max(strides)
    return None
