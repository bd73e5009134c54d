"""Context managers that switch networks to evaluation mode and restore the earlier state afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Set the modules to evaluation mode and disable gradients inside the block; restore each layer's mode after it."""
    with _evaluation_mode(modules), torch.no_grad():
        yield


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Set the network to evaluation mode and exclude its weights from gradients inside the block.

    Gradients with respect to the network's input still flow. After the block each layer's mode and each parameter's
    `requires_grad` are as they were before.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with _evaluation_mode((network,)):
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)


@contextmanager
def _evaluation_mode(modules: tuple[nn.Module, ...]) -> Iterator[None]:
    # Layer by layer, because single layers can have another mode than the whole network.
    modes = [(layer, layer.training) for module in modules for layer in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for layer, training in modes:
            layer.training = training
