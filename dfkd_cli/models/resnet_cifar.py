"""ResNets for 32x32 images: those with option A of arXiv:1512.03385, sec. 4.2, and ResNet-18/34 with a 3x3 stem."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from dfkd_cli.models.common import CIFAR_MEAN, CIFAR_STD, ReferenceNetwork, build, default_cfg, make_head


class PaddedShortcut(nn.Module):
    """Option A: takes every `stride`-th pixel and pads zero channels on both sides; no parameters."""

    def __init__(self, extra_channels: int, stride: int):
        super().__init__()
        self.before = extra_channels // 2
        self.after = extra_channels - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, with weights (option B) or without (option A)."""

    def __init__(self, in_channels: int, channels: int, stride: int, option: str):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            if option == "A":
                self.shortcut = PaddedShortcut(channels - in_channels, stride)
            else:
                conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(ReferenceNetwork):
    """A 3x3 stem at full resolution, then stages of basic blocks, each at half the resolution of the previous one.

    Parameter names are those of the published checkpoints: akamaster's for option A, kuangliu's and DAFL's for B.
    """

    def __init__(
        self, blocks: Sequence[int], widths: Sequence[int], option: str, num_classes: int = 10, in_chans: int = 3
    ):
        super().__init__()
        self.num_features = self.head_hidden_size = widths[-1]
        self.conv1 = nn.Conv2d(in_chans, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.feature_info = [
            {"num_chs": width, "reduction": 2**index, "module": f"layer{index + 1}"}
            for index, width in enumerate(widths)
        ]
        in_channels = [widths[0], *widths]
        stages = [
            _stage(in_channels[index], width, blocks[index], 1 if index == 0 else 2, option)
            for index, width in enumerate(widths)
        ]
        self.layer1, self.layer2, self.layer3 = stages[:3]
        # TorchScript cannot compile a loop over attributes, so option A networks have a fourth stage without layers.
        self.layer4 = stages[3] if len(stages) > 3 else nn.Identity()
        self.num_classes = num_classes
        self.linear = make_head(self.head_hidden_size, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B, C, H/4, W/4] (option A) or [B, C, H/8, W/8] (option B)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits [B, K] of the last feature map, or with `pre_logits` the embedding [B, C]."""
        x = x.mean(dim=(2, 3))
        return x if pre_logits else self.linear(x)


def _stage(in_channels: int, width: int, depth: int, stride: int, option: str) -> nn.Sequential:
    rest = (BasicBlock(width, width, 1, option) for _ in range(depth - 1))
    return nn.Sequential(BasicBlock(in_channels, width, stride, option), *rest)


# The published option A weights (resnet20-12fca82f.th and others) expect ImageNet's normalisation.
_akamaster = default_cfg(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
_cifar = default_cfg(CIFAR_MEAN, CIFAR_STD)
default_cfgs = generate_default_cfgs(
    {
        "cifar_resnet8": _akamaster,
        "cifar_resnet20": _akamaster,
        "cifar_resnet32": _akamaster,
        "cifar_resnet44": _akamaster,
        "cifar_resnet56": _akamaster,
        "cifar_resnet18": _cifar,
        "cifar_resnet34": _cifar,
        "cifar_resnet18_half": _cifar,
    }
)


def _option_a(variant: str, blocks_per_stage: int, pretrained: bool, kwargs: dict[str, Any]) -> CifarResNet:
    defaults = {"blocks": (blocks_per_stage,) * 3, "widths": (16, 32, 64), "option": "A"}
    return build(CifarResNet, variant, pretrained, defaults, kwargs)


def _option_b(variant: str, blocks: Sequence[int], width: int, pretrained: bool, kwargs: dict[str, Any]) -> CifarResNet:
    defaults = {"blocks": blocks, "widths": tuple(width * 2**i for i in range(4)), "option": "B"}
    return build(CifarResNet, variant, pretrained, defaults, kwargs)


@register_model
def cifar_resnet8(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """One block per stage: 75,290 parameters at ten classes."""
    return _option_a("cifar_resnet8", 1, pretrained, kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Three blocks per stage: 269,722 parameters at ten classes."""
    return _option_a("cifar_resnet20", 3, pretrained, kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Five blocks per stage: 464,154 parameters at ten classes."""
    return _option_a("cifar_resnet32", 5, pretrained, kwargs)


@register_model
def cifar_resnet44(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Seven blocks per stage: 658,586 parameters at ten classes."""
    return _option_a("cifar_resnet44", 7, pretrained, kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Nine blocks per stage: 853,018 parameters at ten classes."""
    return _option_a("cifar_resnet56", 9, pretrained, kwargs)


@register_model
def cifar_resnet18(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-18 with a 3x3 stem and no max pool: 11,173,962 parameters at ten classes."""
    return _option_b("cifar_resnet18", (2, 2, 2, 2), 64, pretrained, kwargs)


@register_model
def cifar_resnet34(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-34 with a 3x3 stem and no max pool: 21,282,122 parameters at ten classes."""
    return _option_b("cifar_resnet34", (3, 4, 6, 3), 64, pretrained, kwargs)


@register_model
def cifar_resnet18_half(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-18 with half the channels everywhere."""
    return _option_b("cifar_resnet18_half", (2, 2, 2, 2), 32, pretrained, kwargs)
