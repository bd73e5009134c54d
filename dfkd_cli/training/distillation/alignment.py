"""The distance of the last feature maps of student and teacher, after a trained projection."""

import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_cli.errors import RecipeMismatchError
from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.training.setting import Setting


class FeatureAlignment(nn.Module):
    """The relative error of the student's projected last feature map.

    The projector of SimKD (arXiv:2203.14001, sec. 3.2): 1x1, 3x3 and 1x1 convolutions; CSD's code makes the middle one
    wide. It is trained in the same step as the student and discarded with the run.
    """

    def __init__(self, setting: Setting, middle_channels: int):
        """Make the projection. Raises RecipeMismatchError for networks without visible feature maps."""
        super().__init__()
        self.world = setting.runtime.world
        teacher, student = setting.probe()
        if not (teacher.stages and student.stages):
            lacking = setting.teacher if not teacher.stages else setting.student
            raise RecipeMismatchError(
                f"{lacking.origin.source} has no visible feature maps to compare; choose another network"
            )
        self.channels = student.stages[-1].shape[1]  # that it reads
        self.layers = nn.Sequential(
            nn.Conv2d(self.channels, middle_channels, 1, bias=False),
            nn.BatchNorm2d(middle_channels),
            nn.ReLU(),
            nn.Conv2d(middle_channels, middle_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle_channels),
            nn.ReLU(),
            nn.Conv2d(middle_channels, teacher.stages[-1].shape[1], 1, bias=False),
        )

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """Return the relative error of each image: [B, C, H, W], [B, C', H', W'] -> [B]."""
        height, width = teacher_map.shape[2:]
        if student_map.shape[2:] != (height, width):
            student_map = F.adaptive_avg_pool2d(student_map, (height, width))
        return relative_error(self.layers(student_map), teacher_map, self.world)


def relative_error(features: Tensor, target: Tensor, world: World = ALONE) -> Tensor:
    """Return the squared error divided by the mean squared target of all processes' batches: [B, ...] x 2 -> [B].

    It is 0 at equality, and 1 on average for features of zeros. The published loss is the mean squared error. The
    division makes one weight fit teachers of any activation scale.
    """
    target = target.float()
    error = (features.float() - target).square().flatten(1).mean(dim=1)
    return error / world.mean(target.square().mean()).clamp_min(1e-12)
