"""Random views keep shape and range, depend only on the seed, and have the effect of their names."""

import pytest
import torch

from dfkd_cli.training.augmentation import Augmentation, random_cut, random_flip, random_mix, random_shift


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 32, 32), (4, 9, 17)])
def test_a_view_keeps_shape_range_and_seed(size):
    images = torch.rand(6, *size)
    augmentation = Augmentation(flip=True, shift=0.125, mix=0.5, cut=0.5)
    view = augmentation(images, rng())
    assert view.shape == images.shape
    assert view.min() >= 0
    assert view.max() <= 1
    assert torch.equal(view, augmentation(images, rng()))
    assert not torch.equal(view, augmentation(images, rng(1)))


def test_an_augmentation_without_transforms_changes_nothing():
    images = torch.rand(6, 3, 8, 8)
    assert torch.equal(Augmentation(flip=False, shift=0.0, mix=0.0, cut=0.0)(images, rng()), images)


def test_half_of_the_images_are_mirrored():
    images = torch.rand(400, 1, 2, 2)
    view = random_flip(images, rng())
    mirrored = (view == images.flip(3)).flatten(1).all(1)
    same = (view == images).flatten(1).all(1)
    assert bool((mirrored | same).all())
    assert 0.4 < mirrored.float().mean() < 0.6


def test_every_image_is_moved_by_its_own_offset_within_the_bound():
    images = torch.zeros(300, 1, 9, 9)
    images[:, :, 4, 4] = 1.0
    places = random_shift(images, 2, rng()).flatten(1).argmax(1)
    rows, columns = places // 9 - 4, places % 9 - 4
    assert {int(value) for value in rows} == {int(value) for value in columns} == {-2, -1, 0, 1, 2}


def test_borders_are_reflected():
    images = torch.rand(20, 1, 5, 5)
    assert (random_shift(images, 2, rng()) > 0).all()


def test_a_share_of_the_images_is_blended_with_its_neighbour():
    images = torch.zeros(500, 1, 2, 2)
    images[::2] = 1.0
    blended = random_mix(images, 0.3, rng())
    assert 0.2 < (blended != images).flatten(1).any(1).float().mean() < 0.4


def test_a_share_of_the_images_gets_a_box_of_its_neighbour():
    images = torch.zeros(500, 1, 8, 8)
    images[::2] = 1.0
    changed = random_cut(images, 0.5, rng()) != images
    assert 0.3 < changed.flatten(1).any(1).float().mean() < 0.5  # the smallest boxes fall between two pixels
    for mask in changed.flatten(0, 1)[changed.flatten(1).any(1)]:
        assert torch.equal(mask, mask.any(1, keepdim=True) & mask.any(0, keepdim=True))  # rows times columns


def test_without_mixing_no_view_has_pixels_of_two_images():
    images = torch.arange(8.0).div(8).view(8, 1, 1, 1).expand(8, 1, 4, 4)
    views = Augmentation(flip=True, shift=0.25, mix=1.0, cut=1.0).without_mixing()(images, rng())
    assert torch.equal(views, images)
