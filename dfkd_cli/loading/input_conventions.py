"""Compares estimated input statistics with the usual conventions for images: [0, 1], 0..255, [-1, 1], normalised."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from dfkd_cli.loading.input_statistics import InputStatistics

Convention = Literal["normalised", "unit range", "bytes", "centred", "unknown"]

_TYPICAL_MEAN = 0.45  # of photographs in [0, 1]
_TYPICAL_STD = 0.25
_ONE_CHANNEL_MEANS = (0.1, 0.6)  # from digits and clothes on black to X-rays
_LARGEST_FACTOR = 2.5  # between standard deviations; photographs and estimates differ by less than half of it
_LARGEST_SHIFT = 1.0  # between means, in units of the larger standard deviation


class _Band(NamedTuple):
    means: tuple[float, float]  # over all channels
    stds: tuple[float, float]


_COLOUR: dict[Convention, _Band] = {
    "normalised": _Band((-0.5, 0.5), (0.75, 1.6)),
    "unit range": _Band((0.3, 0.6), (0.15, 0.4)),
    "bytes": _Band((60.0, 160.0), (30.0, 110.0)),
    "centred": _Band((-0.4, 0.2), (0.35, 0.75)),
}
# Images of one channel often have a black background: MNIST has mean 0.13, std 0.31, and Fashion-MNIST 0.29, 0.35.
_ONE_CHANNEL: dict[Convention, _Band] = {
    **_COLOUR,
    "unit range": _Band((0.1, 0.6), (0.15, 0.4)),
    "bytes": _Band((25.0, 160.0), (30.0, 110.0)),
    "centred": _Band((-0.8, 0.2), (0.35, 0.75)),
}


def describe(statistics: InputStatistics) -> Convention:
    """Return the convention that the estimate fits; "unknown" when it fits none or is not trusted."""
    if not statistics.trusted:
        return "unknown"
    mean = _average(statistics.mean)
    bands = _ONE_CHANNEL if len(statistics.mean) == 1 else _COLOUR
    for convention, band in bands.items():
        if band.means[0] <= mean <= band.means[1] and band.stds[0] <= statistics.std <= band.stds[1]:
            return convention
    return "unknown"


def assumed_normalisation(
    statistics: InputStatistics, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the mean and std per channel, of images in [0, 1], to assume when the file has none; None if unknown.

    Normalised inputs of three channels mean ImageNet's values; with another number of channels they are chosen so that
    images of mean 0.45 and std 0.25 get the estimated statistics.
    """
    match describe(statistics):
        case "normalised" if channels == 3:
            return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        case "normalised":
            std = _TYPICAL_STD / statistics.std
            mean, std = _TYPICAL_MEAN - std * _average(statistics.mean), std
        case "unit range":
            mean, std = 0.0, 1.0
        case "bytes":
            mean, std = 0.0, 1.0 / 255.0
        case "centred":
            mean, std = 0.5, 0.5
        case "unknown":
            return None
    return (mean,) * channels, (std,) * channels


def contradicts(statistics: InputStatistics, mean: Sequence[float], std: Sequence[float]) -> str | None:
    """Return one sentence when a normalisation of images in [0, 1] contradicts the estimate; None when it fits.

    Conservative: only a scale that is wrong by a factor of 2.5, or a mean that is off by more than one standard
    deviation, is a contradiction. [-1, 1] in place of ImageNet's values, a factor of 2.2, usually passes, and an
    estimate that is not trusted contradicts nothing. `mean` and `std` hold one value, or one per channel.
    """
    if not statistics.trusted:
        return None
    channels = len(statistics.mean)
    means, stds = _per_channel(mean, channels), _per_channel(std, channels)
    estimated = _average(statistics.mean)
    expected_std = math.sqrt(_average([(_TYPICAL_STD / scale) ** 2 for scale in stds]))
    low, high = (
        _average([(typical - shift) / scale for shift, scale in zip(means, stds, strict=True)])
        for typical in (_ONE_CHANNEL_MEANS if channels == 1 else (_TYPICAL_MEAN, _TYPICAL_MEAN))
    )
    shift = max(low - estimated, estimated - high, 0.0) / max(expected_std, statistics.std)
    factor = max(expected_std / statistics.std, statistics.std / expected_std)
    if factor <= _LARGEST_FACTOR and shift <= _LARGEST_SHIFT:
        return None
    return (
        f"mean {_numbers(mean)} and std {_numbers(std)} give the network inputs of mean {(low + high) / 2:.3g} and std "
        f"{expected_std:.3g}, but its first BatchNorm layer was trained on inputs of about mean {estimated:.3g} and "
        f"std {statistics.std:.3g}"
    )


def _per_channel(values: Sequence[float], channels: int) -> Sequence[float]:
    return tuple(values) * channels if len(values) == 1 else values


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:.4g}" for value in values)
