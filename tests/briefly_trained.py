"""Tiny networks that are trained for a moment on smooth images, whose first BatchNorm then shows their inputs."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 16
BATCH = 32


def smooth_images(channels: int, mean: float, std: float, count: int = 256) -> Tensor:
    """Coarse noise enlarged, plus fine noise: neither has the covariance that the estimate assumes."""
    rng = torch.Generator().manual_seed(0)
    coarse = F.interpolate(torch.randn(count, channels + 1, 5, 5, generator=rng), SIDE, mode="bicubic")
    images = 3.0 * coarse[:, :1] + coarse[:, 1:] + 0.3 * torch.randn(count, channels, SIDE, SIDE, generator=rng)
    offsets = torch.linspace(-0.2, 0.2, channels)[:, None, None] if channels > 1 else 0.0  # differ between channels
    scale, centre = torch.std_mean(images, dim=(0, 2, 3), keepdim=True)
    return mean + std * ((images - centre) / scale + offsets)


def network(stem: nn.Module, channels: int, out: int = 16) -> nn.Sequential:
    head = nn.Sequential(nn.Conv2d(out, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(stem, nn.BatchNorm2d(out), nn.ReLU(), head, nn.Linear(16, channels + 4))


def train(module: nn.Sequential, images: Tensor, steps: int = 30) -> nn.Sequential:
    """Train for a moment to tell bright from dark and left from right; then let the running statistics converge."""
    halves = images.mean(1).unflatten(2, (2, -1)).mean((1, 3))
    labels = (halves.mean(1) > images.mean()).long() + 2 * (halves[:, 0] > halves[:, 1]).long()
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for step in range(steps):
        batch = torch.arange(BATCH * step, BATCH * (step + 1)) % len(images)
        loss = F.cross_entropy(module(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for step in range(100):
            module[:2](images[BATCH * step % len(images) :][:BATCH])
    return module.eval()


def trained(images: Tensor, *, kernel: int = 3, stride: int = 1, bias: bool = False, out: int = 16, groups: int = 1):
    torch.manual_seed(0)
    channels = images.shape[1]
    stem = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=bias, groups=groups)
    return train(network(stem, channels, out), images)


@functools.cache
def unit_network() -> nn.Sequential:
    return trained(smooth_images(3, 0.45, 0.25))
