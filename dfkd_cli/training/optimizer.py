"""The student's optimizer: what trains a network with BatchNorm fast ruins one without."""

from typing import Literal

import torch
from torch import nn

OptimizerName = Literal["auto", "sgd", "adamw"]


def suited_optimizer(student: nn.Module) -> Literal["sgd", "adamw"]:
    """SGD where BatchNorm bounds what a large step can do, else AdamW, whose steps have a size of their own."""
    normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in student.modules())
    return "sgd" if normalised else "adamw"


def make_optimizer(
    trained: nn.Module, kind: Literal["sgd", "adamw"], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW, to which `momentum` is beta 1."""
    if kind == "sgd":
        return torch.optim.SGD(trained.parameters(), lr, momentum, weight_decay=weight_decay, nesterov=momentum > 0.0)
    return torch.optim.AdamW(trained.parameters(), lr, betas=(momentum, 0.999), weight_decay=weight_decay)
