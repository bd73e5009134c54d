"""VGG-11 with BatchNorm for 32x32 images (arXiv:1409.1556), with the single linear layer of the literature."""

from typing import Any

import torch.nn.functional as F
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from dfkd_cli.models.common import CIFAR_MEAN, CIFAR_STD, ReferenceNetwork, build, default_cfg, make_head

_WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def _block(in_channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Return convolution, BatchNorm and ReLU per width, without the last ReLU, which the network applies."""
    layers: list[nn.Module] = []
    for width in widths:
        conv = nn.Conv2d(in_channels, width, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        in_channels = width
    return nn.Sequential(*layers[:-1])


class CifarVgg(ReferenceNetwork):
    """Five blocks, with the parameter names of the checkpoints of CRD and Fast-Datafree.

    As in their code, there is no pooling between the last two blocks for images of up to 32 pixels.
    """

    head_name = "classifier"

    def __init__(self, num_classes: int = 10, in_chans: int = 3):
        super().__init__()
        self.num_features = self.head_hidden_size = _WIDTHS[-1][-1]
        in_channels = [in_chans, *(widths[-1] for widths in _WIDTHS)]
        blocks = [_block(in_channels[index], widths) for index, widths in enumerate(_WIDTHS)]
        self.block0, self.block1, self.block2, self.block3, self.block4 = blocks
        self.feature_info = [
            {"num_chs": widths[-1], "reduction": 2 ** min(index, 3), "module": f"block{index}"}
            for index, widths in enumerate(_WIDTHS)
        ]
        self.num_classes = num_classes
        self.classifier = make_head(self.head_hidden_size, num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, [B, C, 4, 4] for 32x32 images."""
        large = x.shape[2] > 32
        x = F.max_pool2d(F.relu(self.block0(x)), 2)
        x = F.max_pool2d(F.relu(self.block1(x)), 2)
        x = F.max_pool2d(F.relu(self.block2(x)), 2)
        x = F.relu(self.block3(x))
        if large:
            x = F.max_pool2d(x, 2)
        return F.relu(self.block4(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits [B, K] of the last feature map, or with `pre_logits` the embedding [B, C]."""
        x = x.mean(dim=(2, 3))
        return x if pre_logits else self.classifier(x)


default_cfgs = generate_default_cfgs(
    {"cifar_vgg11_bn": default_cfg(CIFAR_MEAN, CIFAR_STD, first_conv="block0.0", classifier="classifier")}
)


@register_model
def cifar_vgg11_bn(pretrained: bool = False, **kwargs: Any) -> CifarVgg:
    """VGG-11 with BatchNorm: 9,231,114 parameters at ten classes."""
    return build(CifarVgg, "cifar_vgg11_bn", pretrained, {}, kwargs)
