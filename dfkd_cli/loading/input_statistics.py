"""Estimates the mean and size of a network's inputs during its training from its first BatchNorm layer.

The running mean and variance of a BatchNorm layer describe the results of the convolution before it. Each filter gives
one linear equation for the mean of its input, and one for its covariance. The covariance of natural images needs only
few numbers: one standard deviation, one correlation between channels, and one correlation between neighbouring pixels,
whose power gives that of distant pixels.
"""

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from dfkd_cli.networks.base import Network
from dfkd_cli.networks.first_layer import FirstLayer, first_layer

# Fitted together with the std, because they differ between 28x28 digits and photographs of 224x224.
_PIXEL_CORRELATIONS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
# Of tiny images, such as digits of 8x8, along the rows relative to the columns too; tried where the others do not fit.
_TINY_CORRELATIONS = (0.4, 0.5, 0.6, 0.7)
_STRETCHES = (1.0, 2.0, 0.5)
_CHANNEL_CORRELATIONS = (0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
_DEAD = 0.03  # a filter whose std is less than this share of the median one is left out: weight decay has emptied it
# Measured on the teachers of the tests and on 150 networks for CIFAR-10, MNIST and Fashion-MNIST: where the running
# statistics had converged, the residuals were at most 0.07 and 0.24, and the estimates within 0.1 std and 20 %.
_LARGEST_MEAN_RESIDUAL = 0.12
_LARGEST_SPREAD_RESIDUAL = 0.25
_SMALLEST_MEAN_RESIDUAL = 0.02  # padding and the objects in the middle of images cause this much
_LARGEST_MEAN_ERROR = 0.25  # of the mean over all channels, in std: filters that all ignore the mean do not give it
_SPARE_FILTERS = 3  # more than there are channels; fewer fit by chance, unless each reads a single channel
_FEWEST_FILTERS = 3  # of one channel each: with one or two, wrong statistics usually fit as well
_LARGEST_STD_RATIO = 1.5  # of the stds that explain such few filters: their middle is then within the 20 % above
_LARGEST_MEAN_DIFFERENCE = 1.0  # of a channel from the mean over all channels, in std; that of images is below 0.5


class _Spread(NamedTuple):
    std: float
    residual: float
    ratio: float  # of the largest to the smallest std that explains the variances, for any correlation of the pixels


class InputStatistics(NamedTuple):
    """Estimated statistics of a network's inputs, after every normalisation outside the network."""

    mean: tuple[float, ...]  # per channel
    std: float  # the same for all channels: their root mean square
    mean_residual: float  # of the filters' means, in units of the filters' std, root mean square
    spread_residual: float  # of the filters' variances, relative to the variances of filters of norm 1
    trusted: bool  # whether the estimate explains the running statistics; it can be far off when it does not


def estimate_input_statistics(network: Network, size: tuple[int, int, int]) -> InputStatistics | None:
    """Return the statistics of the inputs that the network's first BatchNorm layer was trained on.

    `size` (C, H, W) is any image size that the network accepts. Returns None when there is nothing to estimate from: no
    observable BatchNorm, something else than a convolution before it, or running statistics that were never updated.
    """
    layer = first_layer(network, size)
    return None if layer is None or _never_updated(layer) else _fit(_without_dead_filters(layer))


def _never_updated(layer: FirstLayer) -> bool:
    mean, var = layer.statistics
    return not mean.any() and bool((var == 1).all())


def _without_dead_filters(layer: FirstLayer) -> FirstLayer:
    """Return the layer in double precision, with the filters that respond to the images."""
    std = layer.statistics.var.clamp_min(0).sqrt()
    alive = (std > _DEAD * std.median()) & layer.filters.flatten(1).any(dim=1)
    statistics = layer.statistics._make(values[alive].double() for values in layer.statistics)
    filters, sums, bias, _ = layer
    return FirstLayer(filters[alive].double(), sums[alive].double(), bias[alive].double(), statistics)


def _fit(layer: FirstLayer) -> InputStatistics | None:
    count, channels = layer.sums.shape
    if count < channels:
        return None
    mean, mean_residual, mean_error = _fit_mean(layer)
    spread = _std_of_pixels(layer) if _reads_pixels(layer) else _fit_std(layer)
    trusted = (
        _has_enough_filters(layer, mean, spread)
        and mean_residual <= _LARGEST_MEAN_RESIDUAL
        and mean_error <= _LARGEST_MEAN_ERROR * spread.std
        and spread.residual <= _LARGEST_SPREAD_RESIDUAL
    )
    return InputStatistics(tuple(mean.tolist()), spread.std, mean_residual, spread.residual, trusted)


def _reads(layer: FirstLayer) -> Tensor:
    """Return which channels each filter reads: [O, C], 1 or 0."""
    return layer.filters.flatten(2).any(dim=2).double()


def _separates_channels(layer: FirstLayer) -> bool:
    """Return whether every filter reads one channel, as a depthwise convolution does, and every channel is read."""
    reads = _reads(layer)
    return bool((reads.sum(1) == 1).all() and reads.any(0).all())


def _reads_pixels(layer: FirstLayer) -> bool:
    """Return whether every filter reads one pixel: BatchNorm on the input, which shows mean and std as they are."""
    return _separates_channels(layer) and bool((layer.filters.flatten(1).count_nonzero(1) == 1).all())


def _has_enough_filters(layer: FirstLayer, mean: Tensor, spread: _Spread) -> bool:
    """Return whether so many filters explain the estimate only if it is right.

    A filter that reads one channel gives the mean of this channel without others, so that few filters suffice where the
    std hardly depends on the correlation of the pixels and the channels are as alike as those of images. BatchNorm on
    the input needs no confirmation, although it does not show whether its statistics have converged.
    """
    count, channels = layer.sums.shape
    if count >= channels + _SPARE_FILTERS or _reads_pixels(layer):
        return True
    if count < _FEWEST_FILTERS or not _separates_channels(layer):
        return False
    alike = float((mean - mean.mean()).abs().max()) <= _LARGEST_MEAN_DIFFERENCE * spread.std
    return alike and spread.ratio <= _LARGEST_STD_RATIO


def _fit_mean(layer: FirstLayer) -> tuple[Tensor, float, float]:
    """Return the mean per channel [C], the residual, and the standard error of the mean over all channels."""
    std = layer.statistics.var.sqrt()
    sums = layer.sums / std[:, None]
    wanted = (layer.statistics.mean - layer.bias) / std
    inverse = torch.linalg.pinv(sums, rtol=1e-6)
    mean = inverse @ wanted
    residual = float((sums @ mean - wanted).square().mean().sqrt())
    error = max(residual, _SMALLEST_MEAN_RESIDUAL) * float(inverse.mean(0).norm())
    return mean, residual, error


def _std_of_pixels(layer: FirstLayer) -> _Spread:
    """Return the std of filters that each read one pixel, and the residual of those that read the same channel."""
    variances = _variances(layer)
    reads = _reads(layer)
    per_channel = (reads.mT @ variances) / reads.sum(0)
    residual = (variances - reads @ per_channel).norm() / variances.norm()
    return _Spread(float(per_channel.mean().sqrt()), float(residual), ratio=1.0)


def _fit_std(layer: FirstLayer) -> _Spread:
    """Return the std of the best covariance among the tried correlations."""
    usual = _best_fit(layer, [(correlation, 1.0) for correlation in _PIXEL_CORRELATIONS])
    if usual.residual <= _LARGEST_SPREAD_RESIDUAL:
        return usual
    tiny = _best_fit(layer, list(product(_TINY_CORRELATIONS, _STRETCHES)))
    return min(usual, tiny, key=lambda spread: spread.residual)


def _best_fit(layer: FirstLayer, correlations: list[tuple[float, float]]) -> _Spread:
    """Return the std for the best of the correlations of neighbouring pixels, each with the stretch of the rows."""
    channels = layer.filters.shape[1]
    variances = _variances(layer)
    filters = layer.filters / _norms(layer)[:, None, None, None]
    fits = []
    for pixels, stretch in correlations:
        covariances = _covariances(filters, pixels, stretch)
        for between in _CHANNEL_CORRELATIONS if channels > 1 else (1.0,):
            correlation = torch.full((channels, channels), between).double().fill_diagonal_(1.0)
            gains = (covariances * correlation).sum((1, 2))
            scale = (gains @ variances) / (gains @ gains)
            residual = (variances - scale * gains).norm() / variances.norm()
            fits.append((float(residual), float(scale.sqrt())))
    residual, std = min(fits)
    explaining = [std, *(other for residual, other in fits if residual <= _LARGEST_SPREAD_RESIDUAL)]
    return _Spread(std, residual, max(explaining) / min(explaining))


def _norms(layer: FirstLayer) -> Tensor:
    return layer.filters.flatten(1).norm(dim=1)


def _variances(layer: FirstLayer) -> Tensor:
    """Return the variances as of filters of norm 1, so that large filters count no more: [O]."""
    return layer.statistics.var / _norms(layer) ** 2


def _covariances(filters: Tensor, correlation: float, stretch: float) -> Tensor:
    """Return the covariance [O, C, C] of the responses to the channels of unit variance, if they were one channel."""
    height, width = filters.shape[2:]
    pixels = torch.tensor(list(product(range(height), range(width)))).double()
    pixels[:, 1] *= stretch
    correlations = correlation ** torch.cdist(pixels, pixels)
    flat = filters.flatten(2)
    return (flat @ correlations) @ flat.mT
