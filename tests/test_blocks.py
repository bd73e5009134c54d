"""The layer inputs that a narrowed student imitates."""

import copy

import pytest
import torch
from narrowing_networks import CONFIG, Concatenated, Decoded, Excited, Grouped, Stem
from torch import nn

from dfkd_cli.models.lenet import lenet5
from dfkd_cli.models.resnet_cifar import cifar_resnet8, cifar_resnet20
from dfkd_cli.narrowing.blocks import SharedInput, block_error
from dfkd_cli.narrowing.plan import plan_narrowing, shrink
from dfkd_cli.training.taps import Taps


def plain(channels: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((channels, 8), (8, 8), (8, 12), (12, 12), (12, 16), (16, 16)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))


def test_residual_networks_share_the_outputs_of_their_blocks_only():
    module = cifar_resnet8().eval()
    blocks = plan_narrowing(module, torch.randn(2, 3, 32, 32), 0.5, CONFIG).blocks
    assert [shared.layer for shared in blocks] == ["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "linear"]
    assert all(shared.kept is None for shared in blocks)


def test_networks_without_residual_connections_share_the_channels_that_stay():
    blocks = plan_narrowing(plain().eval(), torch.randn(2, 1, 8, 8), 0.5, CONFIG).blocks
    assert [shared.layer for shared in blocks] == ["3", "6", "9", "12", "15", "20"]
    assert any(shared.kept is not None for shared in blocks)


@pytest.mark.parametrize(
    "make",
    [lenet5, plain, Excited, Concatenated, Grouped, Decoded, lambda: Stem(4), lambda: cifar_resnet20(num_classes=3)],
)
def test_both_networks_have_these_channels(make):
    torch.manual_seed(0)
    module = make().eval()
    images = torch.randn(2, next(module.parameters()).shape[1], 32, 32)
    plan = plan_narrowing(module, images, 0.6, CONFIG)
    small = copy.deepcopy(module)
    shrink(small, plan.gone)
    taps = Taps([shared.layer for shared in plan.blocks])
    taps.attach(module)
    taps.attach(small)
    with torch.no_grad():
        _, teacher = taps.watched(module)(images)
        _, student = taps.watched(small)(images)
    assert len(plan.blocks) == len(teacher) == len(student) > 0
    for (_, axis, kept), target, own in zip(plan.blocks, teacher, student, strict=True):
        assert own.shape[axis] == (target.shape[axis] if kept is None else len(kept))
    assert block_error(plan.blocks, student, teacher).isfinite()


def test_removed_channels_do_not_count():
    torch.manual_seed(0)
    kept = torch.tensor([0, 2, 3])
    shared = SharedInput("layer", 1, kept)
    teacher, student = torch.randn(2, 5, 4, 4), torch.randn(2, 3, 4, 4)
    assert block_error([shared], [teacher[:, kept]], [teacher]) == 0
    whole = teacher.clone()
    whole[:, [1, 4]] = 7.0  # still there while they fade out
    assert block_error([shared], [whole], [teacher]) == 0
    exact = teacher[:, kept].double()
    error = (student.double() - exact).square().mean() / exact.square().mean()
    assert torch.allclose(block_error([shared], [student], [teacher]).double(), error, rtol=1e-6)


def test_inputs_have_the_order_in_which_they_are_recorded(monkeypatch):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.late = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 6, 1)
            self.early = nn.Sequential(
                nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1)
            )
            self.head = nn.Linear(6, 3)

        def forward(self, images):
            stem = self.stem(images)
            return self.head((self.early(stem) * self.late(stem)).mean(dim=(2, 3)))

    monkeypatch.setattr("dfkd_cli.narrowing.blocks.LONGEST_BLOCK", 0)
    blocks = plan_narrowing(Twice().eval(), torch.randn(2, 1, 8, 8), 0.6, CONFIG).blocks
    assert [shared.layer for shared in blocks] == ["early.0", "early.2", "early.4", "head"]


def test_images_that_a_network_normalises_itself_are_no_target():
    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = plain()

        def forward(self, images):
            return self.network(images * 2.0 - 1.0)

    blocks = plan_narrowing(Normalising().eval(), torch.randn(2, 1, 8, 8), 0.5, CONFIG).blocks
    assert [shared.layer for shared in blocks] == [f"network.{place}" for place in (3, 6, 9, 12, 15, 20)]


def test_channels_follow_the_device_of_the_features():
    shared = SharedInput("layer", 1, torch.tensor([0, 2]))
    moved = shared.to(torch.device("meta"))
    assert moved.kept is not None
    assert moved.kept.device.type == "meta"
    assert SharedInput("layer", 1, None).to(torch.device("meta")).kept is None
