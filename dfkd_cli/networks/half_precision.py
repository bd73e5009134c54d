"""Layers that a CPU does not train in bfloat16."""

from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.modes import evaluating


def strides_over_smaller_maps(classifier: Classifier) -> bool:
    """Return whether a strided convolution of the network reads maps smaller than its filter.

    On processors with AMX the bfloat16 kernel of torch 2.14 leaves the gradient of the filter's border, which no pixel
    reaches, as memory that was never written: often zeros, sometimes NaN (measured: 1x1 maps, 3x3 filters, stride 2).
    """
    found = False

    def look(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        nonlocal found
        sides = zip(inputs[0].shape[2:], layer.kernel_size, strict=True)
        found |= max(layer.stride) > 1 and any(length < kernel for length, kernel in sides)

    layers = [layer for layer in classifier.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with evaluating(classifier):
            classifier(torch.zeros(2, *classifier.spec.size, device=classifier.mean.device))
    finally:
        for hook in hooks:
            hook.remove()
    return found
