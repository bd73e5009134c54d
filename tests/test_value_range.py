"""Image files of every pixel format have the right values, or are refused in one line that names the flag."""

import json
from pathlib import Path

import numpy as np
import pytest
from bar_images import SIDE, save_bars, save_network, write_png16, write_tiff
from command_line import dfkd
from PIL import Image

from dfkd_cli.data.fitting import fitted
from dfkd_cli.data.reading import ImageReader, ReadOptions
from dfkd_cli.data.value_range import ValueRangeError
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> list[object]:
    return save_network(tmp_path_factory.mktemp("network") / "bars.pt")


def evaluated(network, data: Path, *flags: object) -> float:
    result = dfkd("evaluate", *network, "--data", data, "--json", *flags)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["accuracy"]


def scaled(image: np.ndarray, white: int) -> np.ndarray:
    return (image.astype(np.uint32) * white // 255).astype(np.uint16)


def as_pgm_of_12_bits(image: np.ndarray, path: Path) -> None:
    path.write_bytes(b"P5 16 16 4095\n" + scaled(image, 4095).astype(">u2").tobytes())


def in_rgb(image: np.ndarray, white: int) -> np.ndarray:
    return np.repeat(scaled(image, white)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (lambda image, path: Image.fromarray(image).save(path), ".png"),
        (lambda image, path: Image.fromarray(image.astype(np.int32)).save(path), ".tif"),
        (lambda image, path: Image.fromarray((image / 255).astype(np.float32)).save(path), ".tif"),
        (lambda image, path: Image.fromarray(image.astype(np.float32)).save(path), ".tif"),
        (lambda image, path: write_png16(scaled(image, 65535), path), ".png"),
        (lambda image, path: write_png16(in_rgb(image, 65535), path), ".png"),
        (lambda image, path: write_tiff(65535 - scaled(image, 65535), path, white_is_low=True), ".tif"),
        (lambda image, path: write_tiff((1 - image / 255).astype(np.float32), path, white_is_low=True), ".tif"),
        (lambda image, path: write_tiff(255 - image, path, white_is_low=True), ".tif"),
        (lambda image, path: write_tiff(scaled(image, 4095), path, bits=12), ".tif"),
        (as_pgm_of_12_bits, ".pgm"),
    ],
    ids=[
        "bytes",
        "int32",
        "float to 1",
        "float to 255",
        "16 bits",
        "16 bits in RGB",
        "16 bits, min is white",
        "float, min is white",
        "8 bits, min is white",
        "12-bit TIFF",
        "12-bit PGM",
    ],
)
def test_a_range_that_can_be_told_is_read_rightly(network, tmp_path, write, suffix):
    data = save_bars(tmp_path / "data", write, suffix)
    if suffix == ".png":
        Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)).save(data / "unlit" / "black.png")
    (data / "unlit" / f"0{suffix}").unlink()  # too dark for its range to be told in every format
    Image.new("L", (SIDE, SIDE), 30).save(data / "unlit" / "byte.png")
    assert evaluated(network, data) == 1.0


AMBIGUOUS = {
    "12 bits": (lambda image, path: write_png16(scaled(image, 4095), path), ".png", "I;16", "481 to 4095", "0:4095"),
    "12 bits in RGB": (
        lambda image, path: write_png16(in_rgb(image, 4095), path),
        ".png",
        "RGB;16B",
        "481 to 4095",
        "0:4095",
    ),
    "12 bits in RGBA": (
        lambda image, path: write_png16(np.dstack([in_rgb(image, 4095), np.full(image.shape, 65535, np.uint16)]), path),
        ".png",
        "RGBA;16B",
        "481 to 4095",
        "0:4095",
    ),
    "12 bits with alpha": (
        lambda image, path: write_png16(np.dstack([scaled(image, 4095), scaled(image, 65535)]), path),
        ".png",
        "LA;16B",
        "481 to 4095",
        "0:4095",
    ),
    "12 bits in an RGB TIFF": (
        lambda image, path: write_tiff(in_rgb(image, 4095), path),
        ".tif",
        "RGB;16L",
        "481 to 4095",
        "0:4095",
    ),
    "wide integers": (
        lambda image, path: Image.fromarray(image.astype(np.int32) * 16).save(path),
        ".tif",
        "I",
        "480 to 4080",
        "0:4095",
    ),
    "HDR": (
        lambda image, path: Image.fromarray(image.astype(np.float32) / 70 - 0.1).save(path),
        ".tif",
        "F",
        "0.328571 to 3.54286",
        "0:4",
    ),
    "negative": (
        lambda image, path: Image.fromarray(image.astype(np.float32) / 255 - 0.2).save(path),
        ".tif",
        "F",
        "-0.0823529 to 0.8",
        "-0.2:0.8",
    ),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_range_that_cannot_be_told_is_refused_and_the_flag_states_it(network, tmp_path, name):
    write, suffix, mode, seen, limits = AMBIGUOUS[name]
    data = save_bars(tmp_path / "data", write, suffix)
    result = dfkd("evaluate", *network, "--data", data, "--json")
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    for part in (str(data / "bottom" / f"0{suffix}"), f"mode {mode})", seen, "--value-range"):
        assert part in line
    assert evaluated(network, data, "--value-range", limits) == 1.0


def test_a_value_that_is_not_finite_is_refused_with_and_without_the_flag(tmp_path):
    values = np.full((4, 4), 0.5, np.float32)
    values[0, :2] = np.nan, np.inf
    Image.fromarray(values).save(tmp_path / "x.tif")
    for options in (ReadOptions(), ReadOptions((0, 1))):
        with pytest.raises(ValueRangeError, match=r"x\.tif .*2 values that are NaN or infinite"):
            ImageReader(options).open(tmp_path / "x.tif")


@pytest.mark.parametrize(("kind", "dark", "bright"), [(np.int32, 200, 50_000), (np.float32, 1, 200)])
def test_files_of_one_kind_that_look_differently_are_refused_together(tmp_path, kind, dark, bright):
    for name, value in (("dark", dark), ("bright", bright)):
        Image.fromarray(np.full((4, 4), value, kind)).save(tmp_path / f"{name}.tif")
    reader = ImageReader()
    reader.open(tmp_path / "dark.tif")
    with pytest.raises(ValueRangeError, match=r"dark\.tif .*bright\.tif .*--value-range"):
        reader.open(tmp_path / "bright.tif")


def test_a_guess_and_a_clipped_value_are_noted(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.int32)).save(tmp_path / "x.tif")
    guessing, told = ImageReader(), ImageReader(ReadOptions((0, 100)))
    assert guessing.open(tmp_path / "x.tif").getpixel((0, 0)) == 200
    assert told.open(tmp_path / "x.tif").getpixel((0, 0)) == 255
    assert "x.tif) were taken to be 0 for black and 255 for white" in guessing.notes()[0]
    assert "1 image file has values outside --value-range" in told.notes()[0]


@pytest.mark.parametrize(("bright", "noted"), [(15, True), (32, True), (33, False), (255, False)])
def test_a_set_that_is_nearly_black_is_noted(tmp_path, bright, noted):
    reader = ImageReader()
    for name, pixels in (("a", Image.new("L", (4, 4), bright)), ("b", Image.new("RGBA", (4, 4), (3, 2, 1, 255)))):
        pixels.save(tmp_path / f"{name}.png")
        reader.open(tmp_path / f"{name}.png")
    assert any(f"is above {bright} of 255, so they are nearly black" in note for note in reader.notes()) == noted


def test_a_pool_whose_range_cannot_be_told_is_refused(tmp_path):
    from dfkd_cli.pool.folder import read_pool

    Image.new("L", (8, 8), 9).save(tmp_path / "a.png")
    write_png16(np.full((8, 8), 4095, np.uint16), tmp_path / "b.png")
    spec = InputSpec((1, 8, 8), (0.0,), (1.0,), 2)
    with pytest.raises(ValueRangeError, match=r"b\.png"):
        list(read_pool(tmp_path, spec, 4, ImageReader()))
    (chunk,) = read_pool(tmp_path, spec, 4, ImageReader(ReadOptions((0, 4095))))
    assert dict(zip(chunk.files, chunk.images.amax((1, 2, 3)).tolist(), strict=True)) == {"a.png": 9, "b.png": 255}


@pytest.mark.parametrize("text", ["4095", "a:b", "5:5", "9:1", "0:inf", "0:1:2"])
def test_a_range_that_is_none_is_refused(network, text):
    result = dfkd("evaluate", *network, "--data", "nowhere", "--value-range", text)
    assert result.exit_code == 2
    assert "--value-range" in result.stderr


def palette(path: Path, image: Image.Image) -> None:
    image.quantize(4).save(path, transparency=bytes([0, 255, 255, 255]))


ORANGE = (204, 102, 51)


@pytest.mark.parametrize(
    ("suffix", "write", "expected"),
    [
        (".png", lambda path: palette(path, Image.new("RGB", (8, 8), ORANGE)), ORANGE),
        (".png", lambda path: Image.new("1", (8, 8), 1).save(path), (255, 255, 255)),
        (".tif", lambda path: Image.new("1", (8, 8), 1).save(path, tiffinfo={262: 0}), (0, 0, 0)),
        (".png", lambda path: Image.new("LA", (8, 8), (51, 9)).save(path), (51, 51, 51)),
        (".jpg", lambda path: Image.new("CMYK", (8, 8), (51, 153, 204, 0)).save(path, quality=95), ORANGE),
        (".tif", lambda path: Image.new("CMYK", (8, 8), (51, 153, 204, 0)).save(path), ORANGE),
        (".tif", lambda path: Image.new("RGB", (8, 8), ORANGE).convert("YCbCr").save(path), ORANGE),
        (".tif", lambda path: Image.new("LAB", (8, 8), (128, 128, 128)).save(path), (119, 119, 119)),
        (".png", lambda path: write_png16(np.full((8, 8, 3), [52428, 26214, 13107], np.uint16), path), ORANGE),
        (".tif", lambda path: Image.fromarray(np.full((8, 8), 52428, ">u2")).save(path), (204, 204, 204)),
    ],
    ids=["palette", "1 bit", "1 bit, min is white", "LA", "CMYK JPEG", "CMYK TIFF", "YCbCr", "LAB", "RGB 16", "I;16B"],
)
def test_colours_of_every_mode_are_right(tmp_path, suffix, write, expected):
    path = tmp_path / f"x{suffix}"
    write(path)
    pixels = fitted(ImageReader().open(path), InputSpec((3, 8, 8), (0.0,) * 3, (1.0,) * 3, 2))
    assert pixels.shape == (8, 8, 3)
    np.testing.assert_allclose(pixels[4, 4], expected, atol=2)


def test_options_outside_their_range_are_refused():
    with pytest.raises(UsageError, match="--exif-orientation"):
        ReadOptions(exif_orientation="upright")  # pyright: ignore[reportArgumentType]
