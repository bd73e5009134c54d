"""Small networks for the tests of `dfkd_cli.networks`, each with a feature that is hard to observe correctly."""

from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_cli.networks import Network

SIZE = (3, 32, 32)


class Tangled(nn.Module):
    """Has a layer used twice, one registered out of order, functional BatchNorm, and one without statistics."""

    mean: Tensor
    var: Tensor

    def __init__(self):
        super().__init__()
        self.last_norm = nn.BatchNorm2d(8)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.forgetful = nn.BatchNorm2d(8, track_running_stats=False)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.register_buffer("mean", torch.randn(8))
        self.register_buffer("var", torch.rand(8) + 0.5)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.norm(torch.relu(self.norm(self.stem(x))))
        if self.training:
            x = self.last_norm(x)
        x = torch.relu(F.batch_norm(x, self.mean, self.var))
        x = self.forgetful(self.last_norm(self.down(x)))
        return self.head(torch.relu(x).mean((2, 3)) + torch.arange(8, device=x.device))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(294, 20), nn.ReLU(), nn.Linear(20, 10))

    def forward(self, x):
        return self.head(self.body(x))


class Attending(nn.Module):
    """Convolutions of slices of a map, then attention between 16 tokens, whose weights have the size of a map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), nn.BatchNorm2d(6))
        self.patches = nn.ModuleList(nn.Conv2d(2, channels, 4, stride=4) for channels in (2, 2, 4))
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        parts = torch.split(self.stem(x), 2, dim=1)
        joined = torch.cat([convolution(parts[i]) for i, convolution in enumerate(self.patches)], dim=1)
        tokens = joined.flatten(2).unflatten(1, (2, 4)).mT  # [B, heads, tokens, channels]
        return self.head(((tokens @ tokens.mT).softmax(dim=-1) @ tokens).mean((1, 2)))


def _vit() -> nn.Module:
    return timm.create_model("test_vit", num_classes=10, img_size=32, patch_size=8)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "test_resnet": lambda: timm.create_model("test_resnet", num_classes=10),
    "test_efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=10),
    "tangled": Tangled,
    "attending": Attending,
    "lenet": LeNet,
    "vit": _vit,
}
NORM_CALLS = {"test_resnet": 15, "test_efficientnet": 13, "tangled": 4, "attending": 1, "lenet": 0, "vit": 0}


def make_module(name: str) -> Any:
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats:
            nn.init.normal_(layer.get_buffer("running_mean"), std=0.3)  # initial statistics would hide a wrong order
            nn.init.uniform_(layer.get_buffer("running_var"), 0.5, 1.5)
    return module


def make_images(batch: int = 4) -> Tensor:
    return torch.randn(batch, *SIZE, generator=torch.Generator().manual_seed(1))


def batchnorm_loss(network: Network, inputs: Tensor) -> Tensor:
    losses = []
    for norm_input, running in zip(network.observe(inputs).norm_inputs, network.norm_statistics, strict=True):
        var, mean = torch.var_mean(norm_input, dim=(0, 2, 3), correction=0)
        losses.append((mean - running.mean).abs().mean() + (var - running.var).abs().mean())
    return torch.stack(losses).mean()
