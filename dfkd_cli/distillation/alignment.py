"""A student's last feature map brought to the shape of the teacher's, and compared with it."""

import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_cli.errors import RecipeMismatchError
from dfkd_cli.training.setting import Setting


class FeatureAlignment(nn.Module):
    """How far the student's last feature map, projected, is from the teacher's.

    The projector of SimKD (arXiv:2203.14001, sec. 3.2): 1x1, 3x3 and 1x1 convolutions; CSD's code has it with a wide
    middle. It is trained with the student and thrown away.
    """

    def __init__(self, setting: Setting, middle_channels: int):
        """Raises RecipeMismatchError for networks whose feature maps cannot be seen."""
        super().__init__()
        teacher, student = setting.probe()
        if not (teacher.stages and student.stages):
            blind = setting.teacher if not teacher.stages else setting.student
            raise RecipeMismatchError(f"{blind.origin.source} has no feature maps to align; choose another network")
        self.layers = nn.Sequential(
            nn.Conv2d(student.stages[-1].shape[1], middle_channels, 1, bias=False),
            nn.BatchNorm2d(middle_channels),
            nn.ReLU(),
            nn.Conv2d(middle_channels, middle_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle_channels),
            nn.ReLU(),
            nn.Conv2d(middle_channels, teacher.stages[-1].shape[1], 1, bias=False),
        )

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """[B, C, H, W], [B, C', H', W'] -> error of each image [B]."""
        height, width = teacher_map.shape[2:]
        if student_map.shape[2:] != (height, width):
            student_map = F.adaptive_avg_pool2d(student_map, (height, width))
        return relative_error(self.layers(student_map), teacher_map)


def relative_error(features: Tensor, target: Tensor) -> Tensor:
    """Squared error in units of the batch's mean squared target: [B, ...] x 2 -> [B]; 0 at equality, 1 for zeros.

    Mean squared error is what is published; in these units one weight means the same on every teacher.
    """
    target = target.float()
    error = (features.float() - target).square().flatten(1).mean(dim=1)
    return error / target.square().mean().clamp_min(1e-12)
