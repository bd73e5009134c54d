"""The student's optimizer: what trains a network with BatchNorm fast ruins one without."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from dfkd_cli.training.muon import Muon

OptimizerKind = Literal["muon", "sgd", "adamw"]
OptimizerName = Literal["auto", "muon", "sgd", "adamw"]


@dataclass(frozen=True)
class Rates:
    """The rates at their peak, of which each optimizer takes its own."""

    lr: float  # of SGD, and under Muon of everything but filters
    muon_lr: float  # of filters under Muon
    muon_decay: float  # of filters under Muon
    adamw_lr: float
    momentum: float  # AdamW's beta 1
    weight_decay: float


def suited_optimizer(student: nn.Module) -> OptimizerKind:
    """Muon where BatchNorm bounds what a large step can do, else AdamW, whose steps have a size of their own."""
    normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in student.modules())
    return "muon" if normalised else "adamw"


def make_optimizer(trained: nn.Module, kind: OptimizerKind, rates: Rates) -> torch.optim.Optimizer:
    """Muon or SGD, both with Nesterov momentum, or AdamW, to which the momentum is beta 1."""
    momentum, decay = rates.momentum, rates.weight_decay
    if kind == "muon":
        return Muon(trained, rates.lr, momentum, decay, filter_lr=rates.muon_lr, filter_decay=rates.muon_decay)
    if kind == "sgd":
        return torch.optim.SGD(trained.parameters(), rates.lr, momentum, weight_decay=decay, nesterov=momentum > 0.0)
    return torch.optim.AdamW(trained.parameters(), rates.adamw_lr, betas=(momentum, 0.999), weight_decay=decay)
