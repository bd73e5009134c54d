"""Wide residual networks for 32x32 images (arXiv:1605.07146), with the parameter names of published checkpoints."""

from typing import Any

import torch.nn.functional as F
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from dfkd_cli.models.common import CIFAR_MEAN, CIFAR_STD, ReferenceNetwork, build, default_cfg, make_head


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions; a 1x1 shortcut where the width changes."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        same_width = in_channels == channels
        # Spelt as in the published checkpoints.
        self.convShortcut = None if same_width else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class Stage(nn.Module):
    """Blocks of one width; a separate module because the keys of the checkpoints are `block1.layer.0...`."""

    def __init__(self, depth: int, in_channels: int, channels: int, stride: int):
        super().__init__()
        first = PreActivationBlock(in_channels, channels, stride)
        self.layer = nn.Sequential(first, *(PreActivationBlock(channels, channels, 1) for _ in range(depth - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(ReferenceNetwork):
    """WRN-depth-width without dropout; depth = 6 n + 4 with n blocks in each of three stages."""

    head_name = "fc"

    def __init__(self, depth: int, width: int, num_classes: int = 10, in_chans: int = 3):
        super().__init__()
        blocks = (depth - 4) // 6
        self.num_features = self.head_hidden_size = 64 * width
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.block1 = Stage(blocks, 16, 16 * width, 1)
        self.block2 = Stage(blocks, 16 * width, 32 * width, 2)
        self.block3 = Stage(blocks, 32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.feature_info = [
            {"num_chs": 16 * 2**i * width, "reduction": 2**i, "module": f"block{i + 1}"} for i in range(3)
        ]
        self.num_classes = num_classes
        self.fc = make_head(self.head_hidden_size, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B, C, H/4, W/4] of normalised images."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return F.relu(self.bn1(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits [B, K] of the last feature map, or with `pre_logits` the embedding [B, C]."""
        x = x.mean(dim=(2, 3))
        return x if pre_logits else self.fc(x)


_cifar = default_cfg(CIFAR_MEAN, CIFAR_STD, classifier="fc")
default_cfgs = generate_default_cfgs(
    {"cifar_wrn_16_1": _cifar, "cifar_wrn_16_2": _cifar, "cifar_wrn_40_1": _cifar, "cifar_wrn_40_2": _cifar}
)


@register_model
def cifar_wrn_16_1(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-1: 175,066 parameters at ten classes."""
    return build(WideResNet, "cifar_wrn_16_1", pretrained, {"depth": 16, "width": 1}, kwargs)


@register_model
def cifar_wrn_16_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-2: 691,674 parameters at ten classes."""
    return build(WideResNet, "cifar_wrn_16_2", pretrained, {"depth": 16, "width": 2}, kwargs)


@register_model
def cifar_wrn_40_1(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-1: 563,930 parameters at ten classes."""
    return build(WideResNet, "cifar_wrn_40_1", pretrained, {"depth": 40, "width": 1}, kwargs)


@register_model
def cifar_wrn_40_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-2: 2,243,546 parameters at ten classes."""
    return build(WideResNet, "cifar_wrn_40_2", pretrained, {"depth": 40, "width": 2}, kwargs)
