"""The distance of the stages that student and teacher share in shape: a target beside what a method teaches."""

import torch
from torch import Tensor

from dfkd_cli.training.distillation.alignment import relative_error
from dfkd_cli.training.schedules import linear
from dfkd_cli.training.setting import Setting, Terms


class StageError:
    """The weighted term `stages` of recorded feature maps."""

    def __init__(self, setting: Setting, weight: float, until: float):
        """The weight falls linearly to 0 at the progress `until`."""
        self.world, self.weight, self.until = setting.runtime.world, weight, until

    def __call__(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], learned: float) -> Terms:
        """Return the mean over maps of the squared error in units of the teacher's mean square, a scalar >= 0.

        `learned` is the share of the student's training that is done. There is no term once its weight is 0.
        """
        weight = self.weight * linear(learned, 1.0, 0.0, until=self.until)
        if weight == 0.0:
            return {}
        pairs = zip(student, teacher, strict=True)
        errors = [relative_error(own, target, self.world).mean() for own, target in pairs]
        return {"stages": weight * torch.stack(errors).mean()} if errors else {}
