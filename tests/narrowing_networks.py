"""Networks whose channels are removed in different ways, for tests."""

import torch
from torch import nn

from dfkd_cli.narrowing.config import NarrowingConfig

CONFIG = NarrowingConfig(order="response", fade=0.5, overlap=0.15, refit=True, blocks=30.0, rate=0.25)


class Excited(nn.Module):
    """A depthwise convolution and a gate of one pixel between two convolutions, as in MobileNetV3."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.widen = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.PReLU(24))
        self.depthwise = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24))
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 6, 1), nn.ReLU(), nn.Conv2d(6, 24, 1))
        self.narrow = nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(8 * 16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.stem(images)
        wide = self.depthwise(self.widen(stem))
        wide = wide * self.squeeze(wide).sigmoid()
        return self.head(nn.functional.adaptive_avg_pool2d(stem + self.narrow(wide), 4).flatten(1))


class Concatenated(nn.Module):
    """Two branches side by side, as in DenseNet and Inception."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(1, 10, 1)
        self.norm, self.head = nn.BatchNorm2d(16), nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.left(images), self.right(images)], dim=1)
        return self.head(torch.relu(self.norm(both)).mean(dim=(2, 3)))


class Shuffled(nn.Module):
    """Two branches whose channels are shuffled and split again, as in ShuffleNet."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.units = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 8, 3, padding=1))
            for _ in range(2)
        )
        self.head = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        for unit in self.units:
            left, right = features.chunk(2, dim=1)
            both = torch.cat([left, unit(right)], dim=1)
            batch, channels, height, width = both.shape
            pairs = both.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
            features = pairs.view(batch, channels, height, width)
        return self.head(torch.relu(features).mean(dim=(2, 3)))


class Grouped(nn.Module):
    """Convolutions with 4 groups, also of unequal numbers of inputs and outputs, and GroupNorm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU())
        self.widen = nn.Sequential(nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.grouped = nn.Conv2d(24, 40, 3, padding=2, dilation=2, groups=4)
        self.norm = nn.InstanceNorm2d(40, affine=True)
        self.narrow = nn.Conv2d(40, 16, 1)
        self.doubled = nn.Conv2d(16, 32, 3, groups=16)
        self.head = nn.Linear(32, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.stem(images)
        wide = torch.relu(self.norm(self.grouped(self.widen(stem))))
        return self.head(torch.relu(self.doubled(stem + self.narrow(wide))).mean(dim=(2, 3)))


class Decoded(nn.Module):
    """Transposed convolutions after a strided one, as in decoders."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(12, 10, 3, stride=2, bias=False), nn.BatchNorm2d(10), nn.PReLU())
        self.last = nn.Sequential(nn.ConvTranspose2d(10, 6, 2, stride=2), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.up(self.down(images))).mean(dim=(2, 3)))


class Stem(nn.Module):
    """A strided pooling between the first layer of a residual connection and its blocks, as in ResNets for ImageNet."""

    def __init__(self, inside: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.MaxPool2d(2))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(32, inside, 3, padding=1), nn.BatchNorm2d(inside), nn.ReLU(), nn.Conv2d(inside, 32, 1)
            )
            for _ in range(2)
        )
        self.head = nn.Linear(32, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        for block in self.blocks:
            features = torch.relu(features + block(features))
        return self.head(features.mean(dim=(2, 3)))


class Gated(nn.Module):
    """Channels times a map of one channel that is computed from them, as in attention gates."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.gate, self.head = nn.Conv2d(16, 1, 1), nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        return self.head((features * self.gate(features).sigmoid()).mean(dim=(2, 3)))


class Halved(nn.Module):
    """An operation after which there are half as many channels, and channels that can go after it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.GLU(dim=1))
        self.last, self.head = nn.Conv2d(8, 24, 3), nn.Linear(24, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.last(self.stem(images))).mean(dim=(2, 3)))


class Attended(nn.Module):
    """A residual block times a map of the mean and the maximum over its channels (arXiv:1807.06521)."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1)
        self.outer, self.map, self.head = nn.Conv2d(24, 16, 1), nn.Conv2d(2, 1, 3, padding=1), nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = torch.relu(self.stem(images))
        block = self.outer(torch.relu(self.inner(stem)))
        both = torch.cat([block.mean(dim=1, keepdim=True), block.amax(dim=1, keepdim=True)], dim=1)
        return self.head(torch.relu(stem + block * self.map(both).sigmoid()).mean(dim=(2, 3)))


class Shared(nn.Module):
    """Two layers with one weight, as in branches that differ in their dilation only."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.near = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.far = nn.Conv2d(16, 16, 3, padding=2, dilation=2, bias=False)
        self.far.weight = self.near.weight
        self.norm, self.head = nn.BatchNorm2d(16), nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        return self.head(torch.relu(self.norm(self.near(features) + self.far(features))).mean(dim=(2, 3)))


class Normalised(nn.Module):
    """InstanceNorm without weights, which has a number of channels and no tensor."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3), nn.InstanceNorm2d(16), nn.ReLU())
        self.last, self.head = nn.Conv2d(16, 16, 3), nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.last(self.stem(images))).mean(dim=(2, 3)))
