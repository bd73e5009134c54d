"""The pass over a folder of images: every image once, and no other files."""

import os
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfkd_cli.data.reading import ImageReader
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.pool import folder as pool_module
from dfkd_cli.pool.folder import check_pool, image_files, read_pool

SIZE = (3, 8, 8)
SPEC = InputSpec(SIZE, (0.5,) * 3, (0.5,) * 3, 10)


def write(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


@pytest.fixture
def tree(tmp_path) -> Path:
    """40 images in four folders, each of another grey."""
    for number in range(40):
        write(tmp_path / "pool" / "abcd"[number // 10] / f"{number}.png", number)
    return tmp_path / "pool"


def test_every_image_file_of_a_tree_is_found_once_and_nothing_else(tree):
    write(tree / "deep" / "er" / "x.JPG")
    write(tree / ".hidden" / "x.png")
    write(tree / ".x.png")
    write(tree / "a" / "@eaDir" / "x.png")
    write(tree / "a" / "animated.gif")
    (tree / "Thumbs.db").write_bytes(b"x")
    (tree / "a" / "notes.txt").write_text("no image")
    (tree / "folder.png").mkdir()
    (tree / "a" / "loop").symlink_to(tree)
    (tree / "linked.png").symlink_to(tree / "a" / "0.png")
    (tree / "itself.png").symlink_to("itself.png")
    (tree / "itself").symlink_to("itself")
    write(tree.parent / "beside" / "evaluation.png")
    (tree / "a" / "around").symlink_to(tree.parent)
    passed_over: Counter[str] = Counter()
    found = list(image_files(tree, passed_over))
    expected = {f"{'abcd'[number // 10]}/{number}.png" for number in range(40)}
    expected |= {"deep/er/x.JPG", "linked.png", "a/animated.gif"}
    assert sorted(found) == sorted(expected)
    assert passed_over == {
        "hidden or written by the system": 2,
        "in hidden folders or folders of the system": 2,
        "with .txt, which is no image format of Pillow": 1,
        "a link to nothing": 1,
        "without a suffix and without an image": 1,
    }


def test_a_flat_folder_is_a_pool(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.png")
    assert sorted(image_files(tmp_path)) == ["0.png", "1.png", "2.png"]


def test_folders_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(pool_module, "FILES_PER_TURN", 2)
    for number in range(40):
        write(tmp_path / "abcd"[number // 10] / f"{number}.png")
    first = [name.split("/")[0] for name in islice(image_files(tmp_path), 8)]
    assert sorted(first) == ["a", "a", "b", "b", "c", "c", "d", "d"]


def test_more_folders_than_may_be_open_are_all_read(tree, monkeypatch):
    monkeypatch.setattr(pool_module, "OPEN_FOLDERS", 1)
    assert len(set(image_files(tree))) == 40


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_each_image_comes_with_its_file_and_is_decoded_once(tree, monkeypatch, threads):
    monkeypatch.setattr(pool_module, "DECODING_THREADS", threads)
    chunks = list(read_pool(tree, SPEC, 16, ImageReader()))
    assert [len(chunk.files) for chunk in chunks] == [16, 16, 8]
    assert [name for chunk in chunks for name in chunk.files] == list(image_files(tree))
    for chunk in chunks:
        assert chunk.images.dtype == torch.uint8
        assert chunk.images.shape[1:] == SIZE
        assert chunk.images[:, 0, 0, 0].tolist() == [int(Path(name).stem) for name in chunk.files]


def test_unreadable_files_are_skipped_and_counted(tree):
    (tree / "a" / "0.png").write_bytes(b"")
    (tree / "b" / "10.png").write_bytes((tree / "b" / "11.png").read_bytes()[:40])
    (tree / "c" / "page.jpg").write_bytes(b"<!DOCTYPE html>")
    chunks = list(read_pool(tree, SPEC, 16, ImageReader()))
    names = {name for chunk in chunks for name in chunk.files}
    assert sum(chunk.unreadable for chunk in chunks) == 3
    assert len(names) == 38
    assert not names & {"a/0.png", "b/10.png", "c/page.jpg"}


def test_a_chunk_without_a_readable_file_does_not_end_the_pass(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    chunks = list(read_pool(tmp_path, SPEC, 4, ImageReader()))
    assert [(len(chunk.files), chunk.unreadable) for chunk in chunks] == [(0, 4), (0, 2)]


def test_images_of_other_sizes_and_colours_become_what_the_network_takes(tmp_path):
    write(tmp_path / "wide.jpg", 100, (640, 360))
    Image.new("L", (5, 9), 50).save(tmp_path / "grey.png")
    (chunk,) = read_pool(tmp_path, SPEC, 4, ImageReader())
    values = {name: image.float().mean().item() for name, image in zip(chunk.files, chunk.images, strict=True)}
    assert values == pytest.approx({"wide.jpg": 100, "grey.png": 50}, abs=1)


def test_images_have_the_same_digest_exactly_when_their_pixels_are_the_same(tmp_path):
    write(tmp_path / "a.png", 7)
    write(tmp_path / "same.png", 7)
    Image.open(tmp_path / "a.png").save(tmp_path / "same.bmp")
    write(tmp_path / "other.png", 8)
    (chunk,) = read_pool(tmp_path, SPEC, 4, ImageReader())
    digests = dict(zip(chunk.files, chunk.digests, strict=True))
    assert digests["a.png"] == digests["same.png"] == digests["same.bmp"] != digests["other.png"]


def test_a_large_jpeg_is_shrunk_while_decoding_without_changing_what_is_seen(tmp_path):
    smooth = np.linspace(0, 255, 256)[None, :, None] * np.linspace(0, 1, 256)[:, None, None] * np.ones((1, 1, 3))
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "x.jpg", quality=95)
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "x.png")
    (chunk,) = read_pool(tmp_path, SPEC, 4, ImageReader())
    assert (chunk.images[0].float() - chunk.images[1].float()).abs().max() <= 4


def test_a_pass_that_is_ended_early_decodes_no_further(tree, monkeypatch):
    opened, reader = [], ImageReader()
    decode = reader.open
    monkeypatch.setattr(reader, "open", lambda path, *more: opened.append(path) or decode(path, *more))
    monkeypatch.setattr(pool_module, "CHUNKS_AHEAD", 1)
    reading = read_pool(tree, SPEC, 4, reader)
    next(reading)
    reading.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert 4 <= len(opened) <= 8


def test_what_cannot_be_a_pool_is_named(tmp_path):
    write(tmp_path / "file.png")
    (tmp_path / "empty").mkdir()
    for name, message in (("nowhere", "no such folder"), ("file.png", "not a folder"), ("empty", "no image files")):
        with pytest.raises(UsageError, match=message) as error:
            check_pool(tmp_path / name)
        assert f"--pool {tmp_path / name}" in str(error.value)


def test_a_folder_that_cannot_be_listed_is_named(tree, monkeypatch):
    def scandir(path, real=os.scandir):
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match=r"cannot list the folder .*/a: Permission denied"):
        list(image_files(tree))
