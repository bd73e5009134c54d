"""Every kind of first layer and of input that the estimate knows, and the kinds on which it must not be trusted."""

import io
import json
import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from command_line import dfkd
from loading_helpers import script
from torch import Tensor, nn

from dfkd_cli.loading.input_conventions import describe
from dfkd_cli.loading.input_statistics import estimate_input_statistics
from dfkd_cli.networks import EagerNetwork, ExportedNetwork, Network, ScriptNetwork

SIDE = 32


def smooth(mean: float, std: float, channels: int = 3) -> Tensor:
    """Return random images with the spectrum of photographs: amplitudes fall as 1 / frequency."""
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(96, channels + 1, SIDE, SIDE, generator=rng)
    rows, columns = torch.fft.fftfreq(SIDE)[:, None], torch.fft.rfftfreq(SIDE)[None]
    amplitudes = (rows**2 + columns**2 + 1 / SIDE**2) ** -0.8
    maps = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitudes, s=(SIDE, SIDE))
    images = 2.5 * maps[:, :1] + maps[:, 1:]
    scale, centre = torch.std_mean(images, dim=(0, 2, 3), keepdim=True)
    offsets = torch.linspace(-0.2, 0.2, channels)[:, None, None] if channels > 1 else 0.0
    return mean + std * ((images - centre) / scale + offsets)


def teacher(stem: nn.Module, images: Tensor) -> nn.Sequential:
    """Return a network whose BatchNorm after `stem` has seen the images."""
    with torch.no_grad():
        responses = stem(images)
    out = responses.shape[1]
    norm = nn.BatchNorm2d(out, momentum=1.0)
    norm(responses)
    return nn.Sequential(stem, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(out, 4)).eval()


class Normalisation(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.45) / 0.25


def conv(channels: int = 3, out: int = 16, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False):
    return nn.Conv2d(channels, out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=bias)


def eager(module: nn.Module, size: tuple[int, int, int]) -> Network:
    return EagerNetwork(module, input_size=size)


def scripted(module: nn.Module, size: tuple[int, int, int]) -> Network:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, its files are not
        torch.jit.save(torch.jit.script(module), content)
        content.seek(0)
        return ScriptNetwork(torch.jit.load(content), input_size=size)


def exported(module: nn.Module, size: tuple[int, int, int]) -> Network:
    content = io.BytesIO()
    batch = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(module, (torch.rand(4, *size),), dynamic_shapes=batch), content)
    content.seek(0)
    return ExportedNetwork(torch.export.load(content))


class Kind(NamedTuple):
    mean: float
    std: float
    convention: str
    stem: Callable[[], nn.Module] = conv
    channels: int = 3
    form: Callable[[nn.Module, tuple[int, int, int]], Network] = eager


UNIT = (0.41, 0.3, "unit range")
KINDS = {
    "normalised": Kind(0.0, 1.1, "normalised"),
    "images in [0, 1]": Kind(*UNIT),
    "images from 0 to 255": Kind(105.0, 76.0, "bytes"),
    "images in [-1, 1]": Kind(-0.18, 0.6, "centred"),
    "odd scale": Kind(0.0, 0.004, "unknown"),
    "one channel": Kind(*UNIT, lambda: conv(1), channels=1),
    "bias": Kind(*UNIT, lambda: conv(bias=True)),
    "stride 2, 7x7": Kind(*UNIT, lambda: conv(kernel=7, stride=2)),
    "patches of 4x4": Kind(*UNIT, lambda: nn.Conv2d(3, 24, 4, 4)),
    "depthwise": Kind(*UNIT, lambda: conv(out=3, groups=3)),
    "three filters of one channel": Kind(*UNIT, lambda: conv(1, out=3), channels=1),
    "BatchNorm on the input": Kind(*UNIT, nn.Identity),
    "normalisation inside": Kind(*UNIT, lambda: nn.Sequential(Normalisation(), conv())),
    "normalisation and BatchNorm": Kind(*UNIT, Normalisation),
    "TorchScript": Kind(*UNIT, form=scripted),
    "exported program": Kind(*UNIT, form=exported),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_inputs_of_every_kind_are_found(name):
    torch.manual_seed(0)
    kind = KINDS[name]
    images = smooth(kind.mean, kind.std, kind.channels)
    network = kind.form(teacher(kind.stem(), images), (kind.channels, SIDE, SIDE))
    found = estimate_input_statistics(network, (kind.channels, SIDE, SIDE))
    assert found is not None
    assert found.trusted, found
    assert describe(found) == kind.convention
    assert found.std == pytest.approx(kind.std, rel=0.2)
    assert found.mean == pytest.approx(images.mean((0, 2, 3)).tolist(), abs=0.1 * kind.std)


NOTHING = {
    "LayerNorm only": lambda: nn.Sequential(
        conv(), nn.Flatten(), nn.LayerNorm(16 * SIDE**2), nn.Linear(16 * SIDE**2, 4)
    ),
    "ReLU before BatchNorm": lambda: teacher(nn.Sequential(conv(), nn.ReLU()), smooth(0.41, 0.3)),
}


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_is_estimated(name):
    assert estimate_input_statistics(eager(NOTHING[name](), (3, SIDE, SIDE)), (3, SIDE, SIDE)) is None


def edges() -> nn.Module:
    """Depthwise filters that nearly sum to zero: their variances depend on the correlation of the pixels above all."""
    stem = conv(out=3, groups=3)
    with torch.no_grad():
        stem.weight.sub_(0.95 * stem.weight.mean((2, 3), keepdim=True))
    return teacher(stem, smooth(0.41, 0.3))


def other_statistics(name: str) -> nn.Module:
    """A depthwise layer with a buffer of other channels."""
    module = teacher(conv(out=3, groups=3), smooth(0.41, 0.3))
    values = module[1].get_buffer(name)
    values.copy_(values.roll(1))
    return module


UNTRUSTED = {
    "edges": edges,
    "means of other channels": lambda: other_statistics("running_mean"),
    "variances of other channels": lambda: other_statistics("running_var"),
    "one filter": lambda: teacher(conv(1, out=1), smooth(0.41, 0.3, channels=1)),
    "three filters of all channels": lambda: teacher(conv(out=3), smooth(0.41, 0.3)),
}


@pytest.mark.parametrize("name", UNTRUSTED)
def test_few_filters_without_confirmation_are_not_trusted(name):
    torch.manual_seed(0)
    size = (1 if name == "one filter" else 3, SIDE, SIDE)
    found = estimate_input_statistics(eager(UNTRUSTED[name](), size), size)
    assert found is not None
    assert not found.trusted, found
    assert describe(found) == "unknown"


def test_batchnorm_on_unlike_channels_is_trusted():
    """Its statistics are those of the input, whatever the input is."""
    images = (
        smooth(0.41, 0.3) * torch.tensor([1.0, 0.3, 0.1])[:, None, None] + torch.tensor([0.0, 3.0, 9.0])[:, None, None]
    )
    found = estimate_input_statistics(eager(teacher(nn.Identity(), images), (3, SIDE, SIDE)), (3, SIDE, SIDE))
    assert found is not None
    assert found.trusted
    assert found.mean == pytest.approx(images.mean((0, 2, 3)).tolist(), rel=1e-3)
    assert found.std == pytest.approx(float(images.var((0, 2, 3)).mean().sqrt()), rel=1e-3)


def test_a_file_that_says_nothing_is_described_in_words(tmp_path):
    torch.manual_seed(0)
    module = teacher(nn.Identity(), smooth(0.41, 0.3))
    module[2] = conv(out=8, stride=2)
    module[5] = nn.Linear(8, 4)
    path = script(module, tmp_path / "t.pt", (3, SIDE, SIDE))
    words = " ".join(dfkd("inspect", path).stdout.split())
    assert "trained on inputs of about mean 0.35, 0.41, 0.47 and std 0.3: images in [0, 1]" in words
    assert "Mean and std are assumed to be 0,0,0 and 1,1,1: the first BatchNorm of the network was trained on" in words
    contradicted = json.loads(dfkd("inspect", path, "--mean", "0.5", "--std", "0.002", "--json").stdout)
    assert contradicted["input_statistics"]["trusted"]
    (note,) = [note for note in contradicted["notes"] if note.startswith("Check mean and std from --mean and --std")]
    assert "mean 0.5,0.5,0.5 and std 0.002,0.002,0.002 give" in note
    assert "about mean 0.41 and std 0.3" in note
