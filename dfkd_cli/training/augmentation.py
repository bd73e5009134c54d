"""Random views of a batch, computed on its device without a loop over samples."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.config.values import require_share
from dfkd_cli.networks.pixels import share_of_sides


@dataclass(frozen=True)
class Augmentation:
    """The random transforms of the images that student and teacher receive."""

    flip: bool  # mirror each image with probability 0.5
    shift: float  # largest translation, as a share of the image's smaller side; borders are reflected
    mix: float  # share of the images that are blended with another one of the batch
    cut: float  # share of the images in which a box is replaced by that of another one
    crop: float = 1.0  # share of the height and width of a random crop, for segmentation networks; 1: whole images

    def __post_init__(self) -> None:
        require_share(self, "shift", "mix", "cut", "crop")

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return one random view of each image: [B, C, H, W] in [0, 1] -> the same range, smaller with `crop`."""
        images = random_crop(images, self.crop, rng) if self.crop < 1.0 else images
        images = random_shift(images, round(self.shift * min(images.shape[2:])), rng)
        images = random_flip(images, rng) if self.flip else images
        images = random_mix(images, self.mix, rng) if self.mix > 0.0 else images
        return random_cut(images, self.cut, rng) if self.cut > 0.0 else images

    def without_mixing(self) -> "Augmentation":
        """Return the same transforms without `mix` and `cut`, whose results have no single label."""
        return replace(self, mix=0.0, cut=0.0)


def random_crop(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Return random crops with this share of the height and width, in multiples of 32 pixels: -> [B, C, h, w]."""
    batch, _, *sides = images.shape
    height, width = share_of_sides(sides, share)
    first = torch.rand(2, batch, 1, generator=rng, device=images.device)
    rows = ((first[0] * (sides[0] - height + 1)).long() + torch.arange(height, device=images.device)).unsqueeze(2)
    columns = ((first[1] * (sides[1] - width + 1)).long() + torch.arange(width, device=images.device)).unsqueeze(1)
    samples = torch.arange(batch, device=images.device).view(-1, 1, 1)
    return images[samples, :, rows, columns].permute(0, 3, 1, 2)


def random_flip(images: Tensor, rng: torch.Generator) -> Tensor:
    """Return images mirrored left to right with probability 0.5 each: [B, C, H, W] -> the same shape."""
    flipped = torch.rand(len(images), 1, 1, 1, generator=rng, device=images.device) < 0.5
    return torch.where(flipped, images.flip(3), images)


def random_shift(images: Tensor, pixels: int, rng: torch.Generator) -> Tensor:
    """Return images translated by up to `pixels` in each direction: [B, C, H, W] -> the same shape.

    This is a random crop after reflection padding. `pixels` is limited to the image's side minus 1.
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
    """Return images of which a `share` is blended with another image of the batch: [B, C, H, W] -> the same shape.

    The factor is uniform in [0, 1]. Labels are not mixed: the teacher predicts the blend (arXiv:2106.05237, sec. 3).
    """
    device, shape = images.device, (len(images), 1, 1, 1)
    factor = torch.rand(shape, generator=rng, device=device)
    chosen = torch.rand(shape, generator=rng, device=device) < share
    return torch.where(chosen, torch.lerp(images.roll(1, 0), images, factor), images)


def random_cut(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Return images of which a `share` contains a box of another image of the batch: [B, C, H, W] -> the same shape.

    CutMix (arXiv:1905.04899, eq. 2) without mixed labels, as in `random_mix`. The box's share of the area is uniform in
    [0, 1] before it is clipped at the border.
    """
    device, (batch, _, height, width) = images.device, images.shape
    chosen, area, row, column = torch.rand(4, batch, 1, 1, 1, generator=rng, device=device)
    side = area.sqrt() * (chosen < share)
    rows = (torch.arange(height, device=device) + 0.5).view(1, 1, -1, 1) / height
    columns = (torch.arange(width, device=device) + 0.5).view(1, 1, 1, -1) / width
    inside = ((rows - row).abs() < side / 2) & ((columns - column).abs() < side / 2)
    return torch.where(inside, images.roll(1, 0), images)
