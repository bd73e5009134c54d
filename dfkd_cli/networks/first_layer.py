"""The affine layer between a network's input and its first BatchNorm layer, found by trial forwards."""

from typing import NamedTuple

import torch
from torch import Tensor

from dfkd_cli.networks.base import Network, NormStatistics
from dfkd_cli.networks.modes import frozen
from dfkd_cli.networks.noise import noise

_LARGEST_FIELD = 33  # pixels per side; a layer that sees more is not a usual first convolution
_TOLERANCE = 1e-3  # of float32 convolutions, relative to the largest response
_FACTORS = (1.0, -3.0)  # of the noise that an affine layer is recognised by: ReLU, clamping and pooling fail for one


class FirstLayer(NamedTuple):
    """The first BatchNorm's input as an affine function of the image, and its running statistics; O filters."""

    filters: Tensor  # of a pixel away from the border: [O, C, h, w]
    sums: Tensor  # change of the filter's mean over all pixels, border included, per unit of a channel: [O, C]
    bias: Tensor  # the filter's mean for an image of zeros: [O]
    statistics: NormStatistics


def first_layer(network: Network, size: tuple[int, int, int]) -> FirstLayer | None:
    """Return the affine layer that feeds the first BatchNorm, probed with images of `size` (C, H, W).

    The layer is measured, not looked up: every form of network is treated alike, and whatever else is affine, such as
    a normalisation inside the network, is included. Returns None when the network has no BatchNorm that can be
    observed, when its input is not affine in the image (another layer lies between), and when it is no feature map
    [B, O, H, W] of a convolution (a linear layer on the flattened image).
    """
    if not network.norm_statistics:
        return None
    statistics = NormStatistics(*(values.detach().float().cpu() for values in network.norm_statistics[0]))
    with frozen(network):
        with torch.no_grad():
            probes = _probes(network, size)
            responses = _first_norm_input(network, probes)
        if responses is None or responses.shape[1] != len(statistics.mean):
            return None
        filters = _jacobian(network, torch.zeros_like(probes[:1]))
    if filters is None or not _is_affine(filters, probes, responses):
        return None
    field = _receptive_field(filters)
    if field is None:
        return None
    means = responses.mean((2, 3))[: size[0] + 1].float().cpu()
    return FirstLayer(field, (means[1:] - means[0]).T, means[0], statistics)


def _probes(network: Network, size: tuple[int, int, int]) -> Tensor:
    """Return an image of zeros, one per channel that is 1 in that channel, and noise: [1 + C + 2, C, H, W]."""
    random = noise(network, 1, size)
    channels = torch.eye(size[0], device=random.device)[:, :, None, None].expand(-1, *size)
    return torch.cat([torch.zeros_like(random), channels, *(factor * random for factor in _FACTORS)])


def _first_norm_input(network: Network, images: Tensor) -> Tensor | None:
    """Return the input of the first BatchNorm call as [B, O, H, W], or None when it has another shape."""
    norm_inputs = network.observe(images.clone()).norm_inputs  # a network can change its input
    if not norm_inputs or norm_inputs[0].ndim != 4 or len(norm_inputs[0]) != len(images):
        return None
    return norm_inputs[0]


def _jacobian(network: Network, image: Tensor) -> Tensor | None:
    """Return the derivative of every channel's central pixel with respect to the image: [O, C, H, W], or None."""
    with torch.enable_grad():
        image = image.requires_grad_()
        response = _first_norm_input(network, image)
        if response is None or not response.requires_grad:
            return None
        pixels = _central(response)[0]
        rows = [torch.autograd.grad(pixel, image, retain_graph=True)[0][0] for pixel in pixels]
    return torch.stack(rows)


def _central(maps: Tensor) -> Tensor:
    return maps[..., maps.shape[-2] // 2, maps.shape[-1] // 2]


def _is_affine(filters: Tensor, probes: Tensor, responses: Tensor) -> bool:
    """Return whether the filters and the response to zeros predict the responses to noise."""
    central = _central(responses)
    measured = central[-len(_FACTORS) :] - central[0]
    predicted = torch.einsum("ochw,bchw->bo", filters, probes[-len(_FACTORS) :])
    return bool((measured - predicted).abs().max() <= _TOLERANCE * measured.abs().max())


def _receptive_field(filters: Tensor) -> Tensor | None:
    """Return the filters [O, C, h, w] without the zeros around them; None when they cover too much of the image."""
    used = filters.abs().amax((0, 1)) > 0
    if not used.any():
        return None
    (rows,), (columns,) = used.any(1).nonzero(as_tuple=True), used.any(0).nonzero(as_tuple=True)
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
    if max(height, width) > _LARGEST_FIELD or (height, width) == tuple(used.shape):
        return None
    return filters[:, :, top : top + height, left : left + width].float().cpu()
