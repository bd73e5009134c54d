"""A student's features brought to the shape of a teacher's, so that both can be compared."""

import torch.nn.functional as F
from torch import Tensor, nn


class FeatureProjection(nn.Module):
    """Feature maps of the student [B, C_s, H, W] -> the teacher's shape [B, C_t, H', W'].

    The projector of SimKD (arXiv:2203.14001): three convolutions around a bottleneck or, as in CSD's code, a wider middle.
    It is trained with the student and thrown away.
    """

    def __init__(self, student_channels: int, teacher_channels: int, middle_channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(student_channels, middle_channels, 1, bias=False),
            nn.BatchNorm2d(middle_channels),
            nn.ReLU(),
            nn.Conv2d(middle_channels, middle_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle_channels),
            nn.ReLU(),
            nn.Conv2d(middle_channels, teacher_channels, 1, bias=False),
        )

    def forward(self, student_map: Tensor, size: tuple[int, int]) -> Tensor:
        """The projected map, averaged or repeated to the teacher's height and width first."""
        if student_map.shape[2:] != size:
            student_map = F.adaptive_avg_pool2d(student_map, size)
        return self.layers(student_map)


def feature_error(projected: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared error in units of the teacher's mean square: [B, C, H, W] x 2 -> [B]; 0 at equality, about 1 for zeros.

    Mean squared error is what is published; in these units one weight means the same on every teacher.
    """
    teacher_map = teacher_map.float()
    error = (projected.float() - teacher_map).square().flatten(1).mean(dim=1)
    return error / teacher_map.square().mean().clamp_min(1e-12)
