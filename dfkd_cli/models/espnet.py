"""ESPNet for semantic segmentation (arXiv:1803.06815), as published for CamVid and Cityscapes."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from dfkd_cli.models.common import default_cfg

_EPS = 1e-3  # of every BatchNorm
_STRIDE = 8  # of the smallest feature map
_BRANCHES = (1, 2, 4, 8, 16)  # dilations of an ESP block


class Conv(nn.Module):
    """A convolution without bias that keeps the size, apart from its stride."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        padding = (kernel - 1) // 2 * dilation
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class NormAct(nn.Module):
    """BatchNorm and PReLU with a weight per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=_EPS)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x))


class ConvNormAct(nn.Module):
    """A convolution, BatchNorm and PReLU."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, (kernel - 1) // 2, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=_EPS)
        self.act = nn.PReLU(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Pyramid(nn.Module):
    """The five dilated convolutions of an ESP block, whose results are summed one after another and concatenated."""

    def __init__(self, before: int, after: int, kernel: int, stride: int):
        super().__init__()
        width = after // len(_BRANCHES)
        first = after - (len(_BRANCHES) - 1) * width
        self.c1 = Conv(before, width, kernel, stride)
        self.d1 = Conv(width, first, 3)
        self.d2 = Conv(width, width, 3, dilation=2)
        self.d4 = Conv(width, width, 3, dilation=4)
        self.d8 = Conv(width, width, 3, dilation=8)
        self.d16 = Conv(width, width, 3, dilation=16)

    def pyramid(self, x: Tensor) -> Tensor:
        """Return the concatenation: [B, before, H, W] -> [B, after, H / stride, W / stride]."""
        x = self.c1(x)
        two = self.d2(x)
        four = two + self.d4(x)
        eight = four + self.d8(x)
        sixteen = eight + self.d16(x)
        return torch.cat([self.d1(x), two, four, eight, sixteen], dim=1)


class EspBlock(Pyramid):
    """An ESP block of stride 1, with a residual connection or without."""

    def __init__(self, before: int, after: int, residual: bool = True):
        super().__init__(before, after, kernel=1, stride=1)
        self.residual = residual
        self.bn = NormAct(after)

    def forward(self, x: Tensor) -> Tensor:
        combined = self.pyramid(x)
        return self.bn(x + combined if self.residual else combined)


class DownBlock(Pyramid):
    """An ESP block of stride 2."""

    def __init__(self, before: int, after: int):
        super().__init__(before, after, kernel=3, stride=2)
        self.bn = nn.BatchNorm2d(after, eps=_EPS)
        self.act = nn.PReLU(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.pyramid(x)))


class Encoder(nn.Module):
    """The encoder, ESPNet-C: `p` and `q` are the numbers of residual blocks at strides 4 and 8."""

    def __init__(self, num_classes: int, in_chans: int, p: int, q: int):
        super().__init__()
        self.level1 = ConvNormAct(in_chans, 16, 3, stride=2)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.b1 = NormAct(16 + in_chans)
        self.level2_0 = DownBlock(16 + in_chans, 64)
        self.level2 = nn.ModuleList(EspBlock(64, 64) for _ in range(p))
        self.b2 = NormAct(128 + in_chans)
        self.level3_0 = DownBlock(128 + in_chans, 128)
        self.level3 = nn.ModuleList(EspBlock(128, 128) for _ in range(q))
        self.b3 = NormAct(256)
        self.classifier = Conv(256, num_classes, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return feature maps at strides 2 and 4, and logits at stride 8."""
        half = self.pool(images)
        first = self.b1(torch.cat([self.level1(images), half], dim=1))
        start = self.level2_0(first)
        x = start
        for block in self.level2:
            x = block(x)
        second = self.b2(torch.cat([x, start, self.pool(half)], dim=1))
        start = self.level3_0(second)
        x = start
        for block in self.level3:
            x = block(x)
        return first, second, self.classifier(self.b3(torch.cat([start, x], dim=1)))


class ESPNet(nn.Module):
    """Normalised RGB images [B, 3, H, W] -> logits [B, K, H, W].

    The published weights expect the channels in the order BGR, so they are reversed here. Images whose height or width
    is no multiple of 8 are padded on the right and below by their border, and the logits are cropped.
    """

    def __init__(self, p: int, q: int, num_classes: int = 12, in_chans: int = 3):
        super().__init__()
        self.num_classes = num_classes
        self.num_features = 256
        self.encoder = Encoder(num_classes, in_chans, p, q)
        self.level3_C = Conv(128 + in_chans, num_classes, 1)
        self.br = nn.BatchNorm2d(num_classes, eps=_EPS)
        self.up_l3 = nn.Sequential(_double(num_classes))
        self.combine_l2_l3 = nn.Sequential(
            NormAct(2 * num_classes), EspBlock(2 * num_classes, num_classes, residual=False)
        )
        self.up_l2 = nn.Sequential(_double(num_classes), NormAct(num_classes))
        self.conv = ConvNormAct(16 + in_chans + num_classes, num_classes, 3)
        self.classifier = _double(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, K, H, W] of normalised images."""
        height, width = x.shape[2], x.shape[3]
        below, right = -height % _STRIDE, -width % _STRIDE
        x = x.flip(1)
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        first, second, coarse = self.encoder(x)
        x = torch.cat([self.level3_C(second), self.up_l3(self.br(coarse))], dim=1)
        x = self.up_l2(self.combine_l2_l3(x))
        x = self.classifier(self.conv(torch.cat([x, first], dim=1)))
        return x[:, :, :height, :width] if below or right else x


def _double(channels: int) -> nn.ConvTranspose2d:
    """Return a layer that doubles the resolution."""
    return nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)


# Of CamVid's training images. The origin divides normalised bytes by 255 once more, so that inputs are nearly zero.
_camvid = default_cfg(
    (0.4119, 0.42513, 0.43267),
    (69.9026, 72.6885, 72.1252),
    num_classes=12,
    input_size=(3, 192, 256),
    first_conv="encoder.level1.conv",
    classifier="classifier",
)
default_cfgs = generate_default_cfgs({"espnet_p2_q8": _camvid, "espnet_p2_q3": _camvid, "espnet_p1_q2": _camvid})


def _build(variant: str, p: int, q: int, pretrained: bool, kwargs: dict[str, Any]) -> ESPNet:
    arguments: Any = {"p": p, "q": q} | kwargs
    return build_model_with_cfg(ESPNet, variant, pretrained, **arguments)


@register_model
def espnet_p2_q8(pretrained: bool = False, **kwargs: Any) -> ESPNet:
    """Two and eight residual blocks: 354,517 parameters at twelve classes."""
    return _build("espnet_p2_q8", 2, 8, pretrained, kwargs)


@register_model
def espnet_p2_q3(pretrained: bool = False, **kwargs: Any) -> ESPNet:
    """Two and three residual blocks: 192,597 parameters at twelve classes."""
    return _build("espnet_p2_q3", 2, 3, pretrained, kwargs)


@register_model
def espnet_p1_q2(pretrained: bool = False, **kwargs: Any) -> ESPNet:
    """One and two residual blocks: 152,341 parameters at twelve classes."""
    return _build("espnet_p1_q2", 1, 2, pretrained, kwargs)
