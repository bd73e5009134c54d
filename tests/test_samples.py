"""The image grid shows each image at a visible size."""

import numpy as np
import pytest
import torch
from PIL import Image

from dfkd_cli.data.sample_grid import grid_of


def saved(tmp_path, images, classes) -> np.ndarray:
    (tmp_path / "samples.png").write_bytes(grid_of(images, classes))
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]
    return np.array(Image.open(tmp_path / "samples.png"))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("side", "shown"), [(1, 64), (8, 64), (28, 84), (32, 64), (224, 160)])
def test_every_shape_gives_a_grid(tmp_path, channels, side, shown):
    grid = saved(tmp_path, torch.zeros(4, channels, side, side), torch.tensor([0, 1, 2, 2]))
    assert grid.shape == (6 + 2 * (shown + 14 + 6), 6 + 2 * (shown + 6), 3)


def test_images_are_sorted_by_class_row_by_row(tmp_path):
    levels = torch.tensor([0.8, 0.2, 0.6, 0.4])
    grid = saved(tmp_path, levels.view(4, 1, 1, 1).expand(4, 3, 32, 32), torch.tensor([3, 0, 2, 1]))
    corners = [grid[row, column, 0] for row in (6, 6 + 84) for column in (6, 6 + 70)]
    assert corners == [51, 102, 153, 204]


def test_each_class_begins_a_row_and_continues_below(tmp_path):
    counts = {0: 5, 2: 17, 7: 2}
    classes = torch.tensor([number for number, count in counts.items() for _ in range(count)])
    grid = saved(tmp_path, torch.zeros(len(classes), 3, 64, 64), classes)
    cells = grid[6:].reshape(-1, 84, grid.shape[1], 3)[:, 0, 6:].reshape(-1, 16, 70, 3)[:, :, 0, 0]
    assert (cells == 0).sum(axis=1).tolist() == [5, 16, 1, 2]
    assert (cells[:, 0] == 0).all()


def test_small_images_are_not_smoothed(tmp_path):
    checkers = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    grid = saved(tmp_path, checkers, torch.tensor([5]))
    assert set(np.unique(grid[6:70, 6:70])) == {0, 255}


def test_class_number_is_written_below(tmp_path):
    grid = saved(tmp_path, torch.ones(2, 3, 32, 32), torch.tensor([1, 888]))
    captions = grid[70:84]
    ink = [(captions[:, start : start + 64] < 128).sum() for start in (6, 76)]
    assert 0 < ink[0] < ink[1]


def test_values_out_of_range_are_clipped(tmp_path):
    grid = saved(tmp_path, torch.full((1, 3, 64, 64), 1.7), torch.tensor([0]))
    assert (grid[6:70, 6:70] == 255).all()


def test_bf16_images_with_gradients_are_accepted(tmp_path):
    images = torch.zeros(1, 3, 32, 32, dtype=torch.bfloat16, requires_grad=True)
    assert (saved(tmp_path, images, torch.tensor([0]))[6:70, 6:70] == 0).all()
