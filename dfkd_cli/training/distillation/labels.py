"""The loss terms that methods with labelled images share: softened predictions and labels."""

from dataclasses import dataclass

from torch import Tensor

from dfkd_cli.config.values import require
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.setting import Features, Terms


@dataclass(frozen=True)
class LabelConfig:
    """The terms of predictions and labels in the student's loss."""

    temperature: float  # of the softened predictions
    weight: float  # of the label term; 0 switches it off
    mask: bool  # no label term where the teacher predicts another class

    def __post_init__(self) -> None:
        require(self, 0, "weight")
        require(self, 0.01, "temperature")


def kd_and_label(config: LabelConfig, teacher: Features, student: Features, labels: Tensor) -> tuple[Terms, Terms]:
    """Return the terms `kd` and `label` for labels [B].

    The second dictionary is to be logged: the agreement, and the share of labels that the teacher predicts.
    """
    terms = {"kd": losses.kl_div(student.logits, teacher.logits, config.temperature).mean()}
    if config.weight:
        label = losses.label_loss(student.logits, teacher.logits, labels, config.mask)
        terms["label"] = config.weight * label.mean()
    return terms, {
        "agreement": losses.agreement(student.logits, teacher.logits).mean(),
        "trusted": losses.hits(teacher.logits, labels).mean(),
    }
