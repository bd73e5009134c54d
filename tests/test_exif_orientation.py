"""Image files that carry an EXIF orientation are turned upright by default and counted, or left as they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from bar_images import bar, save_bars, save_network
from command_line import dfkd
from PIL import Image, ImageOps

from dfkd_cli.data.reading import ImageReader, ReadOptions
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.pool.folder import read_pool

STORED = {  # orientation -> how the pixels of an upright image are stored
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def save(image: np.ndarray, path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(image).transpose(STORED[orientation]).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_evaluate_turns_images_upright_and_says_so(tmp_path, orientation):
    network = save_network(tmp_path / "bars.pt")
    data = save_bars(tmp_path / "data", lambda image, path: save(image, path, orientation), ".jpg")
    Image.fromarray(bar("top")).save(data / "top" / "upright.jpg")
    turned = dfkd("evaluate", *network, "--data", data, "--json")
    found = json.loads(turned.stdout)
    assert (found["accuracy"], found["exif_oriented"]) == (1.0, 5)
    assert "5 image files have an EXIF orientation, with which they were turned upright" in turned.stderr
    assert "--exif-orientation ignore" in turned.stderr
    unturned = dfkd("evaluate", *network, "--data", data, "--json", "--exif-orientation", "ignore")
    found = json.loads(unturned.stdout)
    assert (found["accuracy"], found["exif_oriented"]) == (2 / 6, 5)  # the even image, and the one without EXIF
    assert "which was ignored" in unturned.stderr


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_of_every_format_is_upright(tmp_path, suffix, orientation):
    upright = np.zeros((16, 24), np.uint8)
    upright[:5, :7] = 255
    save(upright, tmp_path / f"x{suffix}", orientation)
    reader = ImageReader()
    pixels = np.asarray(reader.open(tmp_path / f"x{suffix}").convert("L")).astype(int)
    assert pixels.shape == upright.shape
    assert np.abs(pixels - upright).mean() < 12
    assert len(reader.turned) == 1


def test_without_turning_the_pixels_are_those_of_the_file(tmp_path):
    save(bar("left"), tmp_path / "x.png", 6)
    reader = ImageReader(ReadOptions(exif_orientation="ignore"))
    with Image.open(tmp_path / "x.png") as stored:
        np.testing.assert_array_equal(np.asarray(reader.open(tmp_path / "x.png")), np.asarray(stored))


def test_16_bit_files_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    image = Image.fromarray(bar("left").astype(np.uint16) * 257)
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(ImageReader().open(tmp_path / "x.png")), bar("left"))


def test_a_large_jpeg_of_a_pool_is_turned_and_noted(tmp_path):
    save(np.repeat(np.repeat(bar("left"), 20, axis=0), 20, axis=1), tmp_path / "x.jpg", 6)
    spec, reader = InputSpec((1, 8, 8), (0.0,), (1.0,), 2), ImageReader()
    (chunk,) = read_pool(tmp_path, spec, 4, reader)
    assert chunk.images[0, 0, :, 0].min() > 200
    assert chunk.images[0, 0, :, 4:].max() < 60
    assert "1 image file has an EXIF orientation" in reader.notes()[0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b""])
def test_a_damaged_exif_block_is_no_error(tmp_path, exif):
    Image.new("L", (8, 8), 77).save(tmp_path / "x.jpg", exif=exif)
    reader = ImageReader()
    assert reader.open(tmp_path / "x.jpg").getpixel((0, 0)) == 77
    assert not reader.turned


def test_the_turns_are_those_of_pillow(tmp_path):
    for orientation in STORED:
        save(np.arange(24, dtype=np.uint8).reshape(4, 6), tmp_path / "x.png", orientation)
        with Image.open(tmp_path / "x.png") as stored:
            expected = ImageOps.exif_transpose(stored)
        np.testing.assert_array_equal(np.asarray(ImageReader().open(tmp_path / "x.png")), np.asarray(expected))
