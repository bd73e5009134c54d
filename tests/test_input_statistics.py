"""The statistics of a network's inputs, estimated from its first BatchNorm layer."""

import copy
import io
import math
import warnings

import pytest
import torch
from briefly_trained import SIDE, network, smooth_images, trained, unit_network
from loading_helpers import load
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from dfkd_cli.loading.input_conventions import assumed_normalisation, contradicts, describe
from dfkd_cli.loading.input_statistics import InputStatistics, estimate_input_statistics
from dfkd_cli.networks import EagerNetwork, ExportedNetwork, Network, ScriptNetwork

CONVENTIONS = {  # mean and std of the images
    "normalised": (0.0, 1.0),
    "unit range": (0.45, 0.25),
    "bytes": (115.0, 64.0),
    "centred": (-0.1, 0.5),
    "unknown": (0.0, 0.004),
}
TEACHERS = {
    "cifar_resnet20": "resnet20-12fca82f.th",
    "cifar_resnet32": "resnet32-d509ac18.th",
    "cifar_resnet44": "resnet44-014dd654.th",
    "cifar_resnet56": "resnet56-4bfd9763.th",
}


def estimate(module: nn.Module, channels: int = 3, side: int = SIDE) -> InputStatistics | None:
    size = (channels, side, side)
    return estimate_input_statistics(EagerNetwork(module, input_size=size), size)


def estimated(module: nn.Module, channels: int = 3, side: int = SIDE) -> InputStatistics:
    statistics = estimate(module, channels, side)
    assert statistics is not None
    return statistics


def assert_close(statistics: InputStatistics, images: Tensor, *, std_error: float = 0.12) -> None:
    assert statistics.trusted, statistics
    std, mean = torch.std_mean(images, dim=(0, 2, 3))
    size = float(std.square().mean().sqrt())
    assert max(abs(a - b) for a, b in zip(statistics.mean, mean.tolist(), strict=True)) < 0.03 * size
    assert 1 / (1 + std_error) < statistics.std / size < 1 + std_error


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_statistics_and_convention_of_briefly_trained_networks(convention, channels):
    mean, std = CONVENTIONS[convention]
    images = smooth_images(channels, mean, std)
    # Running variances start at 1: those of tiny inputs need weights that make up for them, as after a long training.
    module = trained(images) if std > 0.1 else rescaled(trained(images / std), std)
    statistics = estimated(module, channels)
    assert_close(statistics, images)
    assert describe(statistics) == convention


def rescaled(module: nn.Sequential, scale: float) -> nn.Sequential:
    with torch.no_grad():
        module[0].get_parameter("weight").div_(scale)
    return module


@pytest.mark.parametrize(
    "stem",
    [
        {"kernel": 1, "bias": True},
        {"kernel": 5, "stride": 2, "bias": True},
        {"kernel": 7, "stride": 2, "out": 24},
        {"kernel": 3, "stride": 2, "bias": True, "out": 8},
        {"kernel": 3, "groups": 3, "out": 12},
    ],
    ids=str,
)
def test_statistics_of_other_stems(stem):
    images = smooth_images(3, 0.45, 0.25)
    assert_close(estimated(trained(images, **stem)), images)


def test_normalisation_inside_the_network_is_included():
    class Normalised(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, images):
            return self.module((images - 0.45) / 0.25)

    images = smooth_images(3, 0.45, 0.25)
    statistics = estimated(Normalised(trained((images - 0.45) / 0.25)))
    assert_close(statistics, images)
    assert describe(statistics) == "unit range"


@pytest.mark.parametrize("arch", TEACHERS)
def test_teachers_were_trained_on_normalised_images(teachers, arch):
    """CIFAR-10 has std 1.1 under ImageNet's values, and 1.3 with the black border that random crops add."""
    teacher = load(teachers / TEACHERS[arch], arch=arch, mean=(0.5,), std=(0.5,), input_size=(3, 32, 32))
    statistics = estimate_input_statistics(teacher.network, teacher.spec.size)
    assert statistics is not None
    assert describe(statistics) == "normalised"
    assert all(-0.3 < mean < 0.0 for mean in statistics.mean)
    assert 1.15 < statistics.std < 1.35
    assert contradicts(statistics, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) is None
    assert contradicts(statistics, (0.0,), (1.0,)) is not None
    assert contradicts(statistics, (0.0,), (1 / 255,)) is not None


def test_espnet_has_inputs_of_no_usual_convention(teachers):
    weights = torch.load(teachers / "espnet_p_2_q_8_camvid.pth", map_location="cpu", weights_only=True)
    module = network(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), 3).eval()
    module[0].load_state_dict({"weight": weights["encoder.level1.conv.weight"]})
    names = ("weight", "bias", "running_mean", "running_var")
    module[1].load_state_dict({name: weights[f"encoder.level1.bn.{name}"] for name in names}, strict=False)
    statistics = estimated(module, side=64)
    assert statistics.std == pytest.approx(1 / 255, rel=0.2)
    assert all(abs(mean) < 1e-3 for mean in statistics.mean)
    assert describe(statistics) == "unknown"
    assert contradicts(statistics, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) is not None


def exported(module: nn.Module) -> Network:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    return ExportedNetwork(torch.export.export(module, (torch.rand(4, 3, SIDE, SIDE),), dynamic_shapes=shapes))


def fixed_batch(module: nn.Module) -> Network:
    return ExportedNetwork(torch.export.export(module, (torch.rand(8, 3, SIDE, SIDE),)))


def traced(module: nn.Module) -> Network:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, torch.rand(4, 3, SIDE, SIDE)), content)
        content.seek(0)
        script = torch.jit.load(content)
    return ScriptNetwork(script, input_size=(3, SIDE, SIDE))


@pytest.mark.parametrize("form", [exported, fixed_batch, traced])
def test_archives_give_the_same_statistics(form):
    module = trained(smooth_images(3, 0.45, 0.25), kernel=5, stride=2, bias=True)
    statistics = estimate_input_statistics(form(copy.deepcopy(module)), (3, SIDE, SIDE))
    expected = estimated(module)
    assert statistics is not None
    assert statistics.mean == pytest.approx(expected.mean, rel=1e-4)
    assert statistics[1:] == pytest.approx(expected[1:], rel=1e-3)


def test_estimating_leaves_the_network_as_it_was():
    module = copy.deepcopy(unit_network()).train()
    module.zero_grad()
    before = copy.deepcopy(module.state_dict())
    estimate(module)
    assert module.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


def updated(norm: nn.Module) -> nn.Module:
    norm.get_buffer("running_mean").normal_()
    return norm


REFUSED = {
    "no BatchNorm": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()),
    "linear first layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 16), updated(nn.BatchNorm1d(16))),
    "convolution of the whole image": lambda: nn.Sequential(nn.Conv2d(3, 16, SIDE), updated(nn.BatchNorm2d(16))),
    "activation before it": lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), updated(nn.BatchNorm2d(16))),
    "pooling before it": lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.MaxPool2d(2), updated(nn.BatchNorm2d(16))),
    "fewer filters than channels": lambda: nn.Sequential(nn.Conv2d(3, 2, 3), updated(nn.BatchNorm2d(2))),
    "statistics of a new layer": lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_estimated_without_a_convolution_and_trained_statistics(case):
    torch.manual_seed(0)
    module = nn.Sequential(REFUSED[case](), nn.Flatten(), nn.LazyLinear(4)).eval()
    module(torch.zeros(1, 3, SIDE, SIDE))
    assert estimate(module) is None


def test_one_more_convolution_does_estimate():
    """The refusals above are not refusals of everything."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 16, 3), updated(nn.BatchNorm2d(16)), nn.Flatten(), nn.LazyLinear(4)).eval()
    module(torch.zeros(1, 3, SIDE, SIDE))
    assert estimate(module) is not None


def shuffled_variances(module: nn.Sequential) -> None:
    module[1].get_buffer("running_var").copy_(module[1].get_buffer("running_var").roll(1))


def other_means(module: nn.Sequential) -> None:
    module[1].get_buffer("running_mean").normal_(std=3.0)


def barely_updated(module: nn.Sequential) -> None:
    """As after 15 steps: the statistics of a new layer, mean 0 and variance 1, still weigh 20 %."""
    module[1].get_buffer("running_mean").mul_(0.8)
    module[1].get_buffer("running_var").mul_(0.8).add_(0.2)


def without_means(module: nn.Sequential) -> None:
    """Filters that sum to zero tell nothing about the mean."""
    weight = module[0].get_parameter("weight")
    with torch.no_grad():
        weight.sub_(weight.mean((2, 3), keepdim=True))


@pytest.mark.parametrize("change", [shuffled_variances, other_means, barely_updated, without_means])
def test_statistics_that_do_not_fit_the_filters_are_not_trusted(change):
    module = copy.deepcopy(unit_network())
    assert estimated(module).trusted
    change(module)
    statistics = estimated(module)
    assert not statistics.trusted
    assert describe(statistics) == "unknown"
    assert assumed_normalisation(statistics, 3) is None
    assert contradicts(statistics, (100.0,), (1.0,)) is None


def test_tiny_images_whose_pixels_correlate_less_along_the_rows():
    """As those of digits of 8x8, which are strokes."""
    distances = (torch.arange(8.0)[:, None] - torch.arange(8.0)).abs()
    rows, columns = (torch.linalg.cholesky(correlation**distances) for correlation in (0.2, 0.6))
    noise = torch.randn(512, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = columns @ noise @ rows.T
    statistics = estimated(trained(images), 1, side=8)
    assert_close(statistics, images)
    assert describe(statistics) == "normalised"


def test_few_filters_are_not_trusted():
    assert not estimated(trained(smooth_images(3, 0.45, 0.25), out=5)).trusted


def test_std_is_the_root_mean_square_over_channels():
    images = smooth_images(3, 0.45, 0.25) * torch.tensor([0.8, 1.0, 1.2])[:, None, None]
    size = math.sqrt(float(images.var((0, 2, 3)).mean()))
    assert estimated(trained(images)).std == pytest.approx(size, rel=0.12)
