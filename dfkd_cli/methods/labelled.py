"""What the methods share whose student also learns the labels that its images were asked for."""

from dataclasses import dataclass

from torch import Tensor

from dfkd_cli.config.values import require
from dfkd_cli.distillation import losses
from dfkd_cli.methods.generative import GenerativeOptions
from dfkd_cli.methods.storing import StoringMethod
from dfkd_cli.training.setting import Features, Terms


@dataclass(frozen=True)
class LabelledOptions(GenerativeOptions):
    """What the student learns of each image besides what the method adds."""

    temperature: float
    label: float  # weight of the label term
    mask_labels: bool  # no label term where the teacher disagrees with the label

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0, "label")
        require(self, 0.01, "temperature")


class LabelledMethod(StoringMethod):
    """A generative method whose student learns logits and labels of stored images."""

    def kd_and_label(self, teacher: Features, student: Features, labels: Tensor) -> tuple[Terms, Terms]:
        """The terms `kd` and `label` for labels [B], and what to log: agreement, and how often the labels hold."""
        o = self.options
        terms = {"kd": losses.kl_div(student.logits, teacher.logits, o.temperature).mean()}
        if o.label:
            terms["label"] = o.label * losses.label_loss(student.logits, teacher.logits, labels, o.mask_labels).mean()
        return terms, {
            "agreement": losses.agreement(student.logits, teacher.logits).mean(),
            "trusted": losses.hits(teacher.logits, labels).mean(),
        }
