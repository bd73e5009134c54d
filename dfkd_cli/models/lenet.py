"""LeNet-5 for MNIST resized to 32x32, and the student of DAFL (arXiv:1904.01186) with half of its widths."""

from typing import Any

import torch.nn.functional as F
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from dfkd_cli.models.common import ReferenceNetwork, build, default_cfg, make_head


class LeNet5(ReferenceNetwork):
    """Three 5x5 convolutions and two linear layers with ReLU and max pooling; no BatchNorm.

    The last convolution covers the whole 5x5 map of a 32x32 image. Maps of other image sizes (at least 16x16) are
    average-pooled to 5x5 first, so the weights fit every size.
    """

    head_name = "fc2"

    def __init__(self, widths: tuple[int, int, int, int] = (6, 16, 120, 84), num_classes: int = 10, in_chans: int = 1):
        super().__init__()
        first, second, third, hidden = widths
        self.num_features, self.head_hidden_size = third, hidden  # timm distinguishes maps and embedding
        self.conv1 = nn.Conv2d(in_chans, first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.conv3 = nn.Conv2d(second, third, 5)
        self.fc1 = nn.Linear(third, hidden)
        self.feature_info = [
            {"num_chs": width, "reduction": 2**index, "module": f"conv{index + 1}"}
            for index, width in enumerate((first, second))
        ]
        self.num_classes = num_classes
        self.fc2 = make_head(self.head_hidden_size, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B, C, 1, 1] of normalised images."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        if x.shape[2] != 5 or x.shape[3] != 5:
            x = F.adaptive_avg_pool2d(x, 5)
        return F.relu(self.conv3(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits [B, K] of the last feature map, or with `pre_logits` the output of `fc1` after ReLU."""
        x = F.relu(self.fc1(x.flatten(1)))
        return x if pre_logits else self.fc2(x)


_mnist = default_cfg((0.1307,), (0.3081,), input_size=(1, 32, 32), min_input_size=(1, 16, 16), classifier="fc2")
default_cfgs = generate_default_cfgs({"lenet5": _mnist, "lenet5_half": _mnist})


@register_model
def lenet5(pretrained: bool = False, **kwargs: Any) -> LeNet5:
    """LeNet-5: 61,706 parameters at one channel and ten classes."""
    return build(LeNet5, "lenet5", pretrained, {"widths": (6, 16, 120, 84)}, kwargs)


@register_model
def lenet5_half(pretrained: bool = False, **kwargs: Any) -> LeNet5:
    """LeNet-5 with half of every width: 15,738 parameters at one channel and ten classes."""
    return build(LeNet5, "lenet5_half", pretrained, {"widths": (3, 8, 60, 42)}, kwargs)
