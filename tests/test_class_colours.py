"""Class maps as colours, and strips of images."""

import torch

from dfkd_cli.data.class_colours import colours, strips


def test_the_colours_are_those_of_voc():
    shown = (colours(torch.tensor([[[0, 1, 2, 15, -1]]]))[0, :, 0].T * 255).round().long().tolist()
    assert shown == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [255, 255, 255]]


def test_a_strip_holds_the_image_and_its_maps():
    images, classes = torch.rand(2, 1, 4, 5), torch.zeros(2, 4, 5, dtype=torch.long)
    found = strips(images, [classes, classes + 1])
    assert found.shape == (2, 3, 4, 15)
    assert torch.equal(found[:, 1, :, :5], images[:, 0])
    assert torch.equal(found[:, :, :, 10:], colours(classes + 1))
