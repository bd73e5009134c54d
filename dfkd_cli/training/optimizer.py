"""The student's optimizer, chosen by whether the student has BatchNorm layers."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from dfkd_cli.config.values import require
from dfkd_cli.training.fine_tuning import FineTuningMuon
from dfkd_cli.training.muon import Muon, find_filters

SMALLEST_RATE = 1e-8  # a rate of 0 would not train
LARGEST_MOMENTUM = 0.9999  # with 1 the momentum would never decay
OptimizerKind = Literal["muon", "sgd", "adamw"]
OptimizerName = Literal["auto", "muon", "sgd", "adamw"]


@dataclass(frozen=True)
class OptimizerConfig:
    """The student's optimizer, and the peak learning rates of all of them, of which the chosen one uses its own.

    For a student that begins as the teacher, Muon and AdamW use `muon_lr` and `adamw_lr` for all weights, and neither
    `lr` nor `weight_decay`.
    """

    optimizer: OptimizerName
    lr: float  # of SGD, and of everything but filters under Muon
    muon_lr: float  # of filters under Muon
    muon_decay: float  # of filters under Muon
    adamw_lr: float
    momentum: float  # AdamW's beta 1
    weight_decay: float

    def __post_init__(self) -> None:
        require(self, SMALLEST_RATE, "lr", "muon_lr", "adamw_lr")
        require(self, 0, "weight_decay", "muon_decay")
        require(self, 0, "momentum", at_most=LARGEST_MOMENTUM)


def suited_optimizer(student: nn.Module) -> OptimizerKind:
    """Return "muon" for a student with BatchNorm, which tolerates large steps, and "adamw" for one without."""
    normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in student.modules())
    return "muon" if normalised else "adamw"


def learning_rates(kind: OptimizerKind, *, fine_tuning: bool) -> str:
    """Return the names of the recipe's values that are the learning rates of this optimizer."""
    if kind == "muon":
        return "train.muon_lr" if fine_tuning else "train.muon_lr, train.lr"
    return "train.adamw_lr" if kind == "adamw" else "train.lr"


def make_optimizer(
    trained: nn.Module, kind: OptimizerKind, config: OptimizerConfig, *, fine_tuning: bool = False
) -> torch.optim.Optimizer:
    """Return Muon or SGD, both with Nesterov momentum, or AdamW with the momentum as beta 1.

    `fine_tuning` chooses the forms of Muon and Adam for a network that is trained already, without weight decay of
    anything but Muon's filters.
    """
    momentum, decay = config.momentum, config.weight_decay
    fused = next(trained.parameters()).device.type == "cuda" or None  # one kernel for all tensors
    filters = find_filters(trained)
    if kind == "muon" and fine_tuning:
        return FineTuningMuon(trained, config.muon_lr, momentum, filter_decay=config.muon_decay, filters=filters)
    if kind == "muon":
        of_filters = {"filter_lr": config.muon_lr, "filter_decay": config.muon_decay, "filters": filters}
        return Muon(trained, config.lr, momentum, decay, **of_filters)
    if kind == "adamw" and fine_tuning:
        return FineTuningMuon(trained, config.adamw_lr, momentum, filter_decay=0.0, filters=[], matrix_step=1.0)
    if kind == "sgd":
        return torch.optim.SGD(
            trained.parameters(), config.lr, momentum, weight_decay=decay, nesterov=momentum > 0.0, fused=fused
        )
    return torch.optim.AdamW(
        trained.parameters(), config.adamw_lr, betas=(momentum, 0.999), weight_decay=decay, fused=fused
    )
