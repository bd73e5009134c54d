"""Random views of a batch, made on its own device without a loop over samples."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.config.values import require_share


@dataclass(frozen=True)
class Augmentation:
    """Which views of an image the student and the teacher are shown."""

    flip: bool  # mirror half of the images
    shift: float  # move by up to this share of the image's size, borders reflected
    mix: float  # share of the images blended with another one of the batch
    cut: float  # share of the images that get a box of another one

    def __post_init__(self) -> None:
        require_share(self, "shift", "mix", "cut")

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """One random view of each image: [B, C, H, W] in [0, 1] -> the same."""
        images = random_shift(images, round(self.shift * min(images.shape[2:])), rng)
        images = random_flip(images, rng) if self.flip else images
        images = random_mix(images, self.mix, rng) if self.mix > 0.0 else images
        return random_cut(images, self.cut, rng) if self.cut > 0.0 else images

    def one_image_each(self) -> "Augmentation":
        """The same views without what joins two images: of a joint one no label is known."""
        return replace(self, mix=0.0, cut=0.0)


def random_flip(images: Tensor, rng: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability one half: [B, C, H, W] -> the same shape."""
    flipped = torch.rand(len(images), 1, 1, 1, generator=rng, device=images.device) < 0.5
    return torch.where(flipped, images.flip(3), images)


def random_shift(images: Tensor, pixels: int, rng: torch.Generator) -> Tensor:
    """Each image moved by up to `pixels` each way, its border reflected: [B, C, H, W] -> the same shape.

    The usual padded random crop. Images smaller than the padding are moved by what they allow.
    """
    batch, _, height, width = images.shape
    pixels = min(pixels, height - 1, width - 1)
    if pixels == 0:
        return images
    padded = F.pad(images, (pixels, pixels, pixels, pixels), mode="reflect")
    offsets = torch.randint(0, 2 * pixels + 1, (2, batch, 1), generator=rng, device=images.device)
    rows = (offsets[0] + torch.arange(height, device=images.device)).unsqueeze(2)
    columns = (offsets[1] + torch.arange(width, device=images.device)).unsqueeze(1)
    samples = torch.arange(batch, device=images.device).view(-1, 1, 1)
    return padded[samples, :, rows, columns].permute(0, 3, 1, 2)


def random_mix(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """A `share` of the images blended with another image of the batch by a uniform factor: -> the same shape.

    Labels do not come along: the teacher is asked about the blend itself (arXiv:2106.05237, sec. 3).
    """
    device, shape = images.device, (len(images), 1, 1, 1)
    factor = torch.rand(shape, generator=rng, device=device)
    chosen = torch.rand(shape, generator=rng, device=device) < share
    return torch.where(chosen, torch.lerp(images.roll(1, 0), images, factor), images)


def random_cut(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """A `share` of the images with a box of another image of the batch over a uniform part of their area: -> the same.

    CutMix (arXiv:1905.04899, eq. 2) without its labels, as in `random_mix`; boxes reach beyond the border.
    """
    device, (batch, _, height, width) = images.device, images.shape
    chosen, area, row, column = torch.rand(4, batch, 1, 1, 1, generator=rng, device=device)
    side = area.sqrt() * (chosen < share)
    rows = (torch.arange(height, device=device) + 0.5).view(1, 1, -1, 1) / height
    columns = (torch.arange(width, device=device) + 0.5).view(1, 1, 1, -1) / width
    inside = ((rows - row).abs() < side / 2) & ((columns - column).abs() < side / 2)
    return torch.where(inside, images.roll(1, 0), images)
