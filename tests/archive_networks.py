"""Networks and their archives for the tests of students made from archives."""

import warnings
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dfkd_cli.models  # noqa: F401  (adds dfkd's architectures to timm's)
from dfkd_cli.networks import ExportedNetwork, ScriptNetwork

Form = Literal["script", "dynamic", "fixed"]
FORMS: tuple[Form, ...] = ("script", "dynamic", "fixed")
BATCH = 16


class Vgg(nn.Module):
    """Convolutions, BatchNorm, and a map that is flattened with the recorded batch size; one channel."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(12 * 16, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x.view(x.shape[0], -1))


class Grouped(nn.Module):
    """PReLU, a grouped and a dilated convolution, channels shuffled, a layer called twice, zeros for the batch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same")
        self.grouped = nn.Conv2d(8, 8, 3, groups=2, padding=1)
        self.act = nn.PReLU(8)
        self.dilated = nn.Conv2d(8, 12, 3, dilation=2, padding=2)
        self.last = nn.Conv2d(12, 8, 1)
        self.twice = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        x = self.act(self.grouped(self.stem(x)))
        x = x.view(batch, 2, 4, height, width).transpose(1, 2).reshape(batch, 8, height, width)
        x = self.last(F.relu(self.dilated(x)))
        x = x + torch.zeros(batch, 8, 1, 1, device=x.device)
        return self.head(self.twice(F.relu(self.twice(x))).mean((2, 3)))


class Weights(nn.Module):
    """Weights in forms other than those of layers, two layers with one weight, and norms of all kinds."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(3, 8, 3, stride=2)
        self.second.weight = self.first.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
        self.group = nn.GroupNorm(2, 8)
        self.instance = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.matrix = nn.Parameter(torch.randn(8, 12))
        self.vector = nn.Parameter(torch.randn(12))
        self.weight = nn.Parameter(torch.rand(12) + 0.5)
        self.layer = nn.LayerNorm(12)
        self.drop = nn.Dropout2d(0.2)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.drop(self.up(self.instance(self.group(self.normed(self.first(x))))))
        rows = maps.mean((2, 3)) + self.second(x).amax((2, 3))
        return self.head(self.layer((rows @ self.matrix + self.vector) * self.weight))


MODULES: dict[str, Any] = {"vgg": Vgg, "grouped": Grouped, "weights": Weights}
SIZES = {"vgg": (1, 16, 16), "grouped": (3, 16, 16), "weights": (3, 16, 16), "lenet5": (1, 32, 32)}


def make_network(name: str) -> tuple[Any, tuple[int, int, int]]:
    """Return a module in evaluation mode, with running statistics that are not the initial ones, and its input size."""
    torch.manual_seed(0)
    module = MODULES[name]() if name in MODULES else timm.create_model(name, num_classes=10)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.get_buffer("running_mean"), std=0.1)
            nn.init.uniform_(layer.get_buffer("running_var"), 0.5, 1.5)
    return module.eval(), SIZES.get(name, (3, 32, 32))


def archive(module: nn.Module, size: tuple[int, int, int], form: Form) -> ScriptNetwork | ExportedNetwork:
    """Return the module as a TorchScript archive, or as an exported program with a free or fixed batch size."""
    images = torch.rand(BATCH, *size, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "script":
            traced: Any = torch.jit.trace(module, images)
            return ScriptNetwork(traced, input_size=size)
        shapes = ({0: torch.export.Dim.DYNAMIC},) if form == "dynamic" else None
        program = torch.export.export(module, (images,), dynamic_shapes=shapes)
    return ExportedNetwork(program, input_size=size)
