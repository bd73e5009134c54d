"""Evaluation images have the input size of the network, and unusable folders are refused in one line."""

import gzip
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfkd_cli.data.datasets import open_dataset
from dfkd_cli.data.fitting import fitted
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec


def spec(channels=3, height=8, width=8, classes=2) -> InputSpec:
    return InputSpec((channels, height, width), (0.5,) * channels, (0.5,) * channels, classes)


def image_file(path: Path, mode="RGB", size=(8, 8), value=None) -> np.ndarray:
    """Save an image of noise, or of one value, at `path` and return its pixels."""
    rng = np.random.default_rng(len(str(path)))
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    pixels = rng.integers(0, 256, shape).astype(np.uint8) if value is None else np.full(shape, value, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, count in (("cat", 3), ("dog", 4)):
        for index in range(count):
            image_file(tmp_path / "set" / name / f"{index}.png")
    return tmp_path / "set"


def read(where, wanted, batch_size=256) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*open_dataset(str(where), wanted).batches(batch_size), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_classes_are_numbered_alphabetically(folder):
    data = open_dataset(str(folder), spec())
    assert data.class_names == ("cat", "dog")
    assert data.labels == (0, 0, 0, 1, 1, 1, 1)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_batches_hold_every_image_once_and_in_order(folder, batch_size):
    images, labels = read(folder, spec(), batch_size)
    expected = [
        np.array(Image.open(folder / name)) for name in sorted(os.listdir(folder)) for name in pngs(folder, name)
    ]
    torch.testing.assert_close(images, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2) / 255)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 1]


def pngs(folder, name) -> list[str]:
    return [f"{name}/{file}" for file in sorted(os.listdir(folder / name))]


@pytest.mark.parametrize(("mode", "channels"), [("L", 3), ("RGB", 1), ("RGBA", 3), ("RGBA", 1), ("RGB", 4), ("LA", 2)])
def test_channels_follow_the_network(tmp_path, mode, channels):
    for name in "ab":
        image_file(tmp_path / name / "0.png", mode, value=51)
    images, _ = read(tmp_path, spec(channels))
    assert images.shape == (2, channels, 8, 8)
    torch.testing.assert_close(images[0, 0], torch.full((8, 8), 0.2))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8), 32768, np.uint16)).save(tmp_path / name / "0.png")
    images, _ = read(tmp_path, spec(1))
    torch.testing.assert_close(images, torch.full((2, 1, 8, 8), 128 / 255))


def test_palette_with_transparency_is_read(tmp_path):
    for name in "ab":
        image_file(tmp_path / name / "0.png")
        palette = Image.open(tmp_path / name / "0.png").quantize(4)
        palette.save(tmp_path / name / "0.png", transparency=bytes([0, 255, 255, 255]))
    assert read(tmp_path, spec())[0].shape == (2, 3, 8, 8)


def test_other_sizes_are_resized_as_pillow_does(tmp_path):
    for name in "ab":
        image_file(tmp_path / name / "0.png", size=(6, 6))
    images, _ = read(tmp_path, spec())
    resized = Image.open(tmp_path / "a" / "0.png").resize((8, 8), Image.Resampling.BILINEAR)
    torch.testing.assert_close(images[0].permute(1, 2, 0) * 255, torch.from_numpy(np.array(resized)).float())


@pytest.mark.parametrize("size", [(20, 10), (10, 20), (200, 8)])
def test_images_of_another_shape_are_cropped_in_the_centre(tmp_path, size):
    pixels = np.zeros((size[1], size[0]), np.uint8)
    middle_x, middle_y = size[0] // 2, size[1] // 2
    pixels[middle_y - 1 : middle_y + 1, middle_x - 1 : middle_x + 1] = 255
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "0.png")
    images, _ = read(tmp_path, spec(1, height=8, width=8))
    assert images.shape == (2, 1, 8, 8)
    assert images[0, 0].argmax() in (27, 28, 35, 36)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.write_text("x"), "not a folder"),
        (lambda root: root.mkdir(), "is empty"),
        (lambda root: image_file(root / "0.png"), "not in sub-folders"),
        (lambda root: [(root / name).mkdir(parents=True) for name in "ab"], "no image files in its sub-folders"),
        (lambda root: [image_file(root / name / "0.png") for name in "abc"], "3 classes .* the network has 2"),
        (lambda root: image_file(root / "a" / "0.png"), r"has 1 class \(a\), the network has 2"),
        (lambda root: [image_file(root / "test" / name / "0.png") for name in "ab"], "did you mean .*test"),
    ],
)
def test_unusable_folder_is_refused(tmp_path, make, message):
    root = tmp_path / "set"
    make(root)
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(str(root), spec())
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


def test_hidden_folders_are_not_classes(folder):
    image_file(folder / ".ipynb_checkpoints" / "0.png")
    assert open_dataset(str(folder), spec()).class_names == ("cat", "dog")


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped"])
def test_a_corrupt_image_file_is_named(folder, damage):
    path = folder / "dog" / "2.png"
    content = path.read_bytes()
    flipped = content[:60] + bytes(byte ^ 255 for byte in content[60:])
    path.write_bytes({"cut": content[:100], "empty": b"", "text": b"<html>no</html>", "flipped": flipped}[damage])
    with pytest.raises(UsageError, match=r"dog.2\.png") as caught:
        read(folder, spec(), batch_size=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [".", "..", "../..", "../cat"])
def test_an_image_file_counts_once_however_folders_are_linked(folder, target):
    expected, _ = read(folder, spec())
    (folder / "cat" / "linked").symlink_to(target)
    images, _ = read(folder, spec())
    assert torch.equal(images, expected)


def test_a_link_to_a_folder_elsewhere_is_followed(folder, tmp_path):
    image_file(tmp_path / "elsewhere" / "more.png")
    (folder / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    assert open_dataset(str(folder), spec()).labels == (0,) * 4 + (1,) * 4


def test_hidden_folders_in_a_class_are_left_out(folder):
    image_file(folder / "cat" / ".ipynb_checkpoints" / "copy.png")
    assert open_dataset(str(folder), spec()).labels == (0,) * 3 + (1,) * 4


def test_a_strip_of_one_pixel_is_not_enlarged_as_a_whole(monkeypatch):
    strip, sizes = Image.fromarray(np.linspace(0, 255, 60_000).astype(np.uint8)[:, None]), []
    resize = Image.Image.resize

    def noting(image, size, *arguments, **options):
        sizes.append(size)
        return resize(image, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", noting)
    seen = fitted(strip, spec(3, 64, 64))
    assert sizes == [(64, 64)]
    assert np.unique(seen).tolist() == [127]  # the middle


def test_a_deleted_image_file_is_named(folder):
    data = open_dataset(str(folder), spec())
    (folder / "cat" / "1.png").unlink()
    with pytest.raises(UsageError, match=r"cat.1\.png"):
        list(data.batches(4))


def write_idx(root: Path, name: str, count: int) -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28)).astype(np.uint8)
    for stem in ("train", "t10k"):
        images = struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes()
        labels = struct.pack(">2i", 2049, count) + bytes(index % 10 for index in range(count))
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(labels)


@pytest.mark.parametrize(("name", "below"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_files_are_read_as_torchvision_stores_them(tmp_path, name, below):
    write_idx(tmp_path, below, 12)
    images, labels = read(f"{name}:{tmp_path}", spec(1, 32, 32, 10))
    assert images.shape == (12, 1, 32, 32)
    assert labels.tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ([str(number) for number in range(10)], [*range(10)]),
        ([str(number) for number in reversed(range(10))], [*reversed(range(10))]),
        (["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], [*range(10)]),
    ],
)
def test_labels_of_a_packed_set_are_matched_with_the_class_names_of_the_network(tmp_path, names, labels):
    write_idx(tmp_path, "MNIST", 10)
    data = open_dataset(f"mnist:{tmp_path}", replace(spec(1, classes=len(names)), class_names=tuple(names)))
    assert list(data.labels) == labels
    assert data.contents.classes_without_images == tuple(names[10:])


def test_a_packed_set_of_strange_classes_is_refused(tmp_path):
    write_idx(tmp_path, "MNIST", 10)
    with pytest.raises(UsageError, match=r"9 - nine is none of the network's classes"):
        open_dataset(f"mnist:{tmp_path}", replace(spec(1, classes=10), class_names=(*"012345678", "x")))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist"])
def test_missing_torchvision_files_are_named(tmp_path, name):
    with pytest.raises(UsageError, match="it needs") as caught:
        open_dataset(f"{name}:{tmp_path}", spec(classes=10))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "zipped"])
def test_damaged_idx_files_are_refused(tmp_path, damage):
    write_idx(tmp_path, "MNIST", 12)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes({"cut": content[:5000], "empty": b"", "zipped": gzip.compress(content)}[damage])
    with pytest.raises(UsageError, match="MNIST"):
        open_dataset(f"mnist:{tmp_path}", spec(1, classes=10))


def test_idx_files_of_another_class_count_are_refused(tmp_path):
    write_idx(tmp_path, "MNIST", 12)
    with pytest.raises(UsageError, match=r"10 classes .* the network has 4"):
        open_dataset(f"mnist:{tmp_path}", spec(1, classes=4))


def test_an_empty_name_is_refused():
    with pytest.raises(UsageError, match="--eval is empty"):
        open_dataset("", spec(), "--eval")


def test_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(UsageError, match="unknown data set 'svhn'"):
        open_dataset(f"svhn:{tmp_path}", spec())


def test_network_with_too_many_channels_is_refused(folder):
    with pytest.raises(UsageError, match="takes 5"):
        open_dataset(str(folder), spec(5))
