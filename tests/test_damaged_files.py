"""Tests of damaged teacher files: one line names the damage, with a documented exit code."""

import json
import os
import struct
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from hostile_tools import ARCH, Place, bytes_of, create, honest_files, refused
from torch import nn

from dfkd_cli.errors import TeacherError, UsageError


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return create(ARCH).eval()


@pytest.fixture(scope="module")
def honest(module):
    return honest_files(module)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("form", ["pt", "legacy", "script", "export", "safetensors"])
def test_truncated(place, honest, capfd, form, share):
    content = honest[form]
    place.path.write_bytes(content[: int(len(content) * share)])
    refused(place.path, capfd)


@pytest.mark.parametrize("form", ["pt", "script", "export"])
@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8])
def test_flipped_bits(place, honest, capfd, form, share):
    content = bytearray(honest[form])
    for position in range(int(len(content) * share), int(len(content) * share) + 256):
        content[position] ^= 0x10
    place.path.write_bytes(bytes(content))
    refused(place.path, capfd)


def safetensors_with(header, data=b"\0" * 64, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


BROKEN = {
    "empty": (b"", "is empty"),
    "html": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML page"),
    "html_with_space": (b"\n\n  <html>", "HTML page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "text": ("The model moved to another place, schöne Grüße.".encode(), "a text file"),
    "lfs_pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n", "git lfs pull"),
    "json": (b'{"error": "not found"}', "JSON"),
    "gzip": (b"\x1f\x8b\x08\x00" + b"\0" * 32, "gzip"),
    "noise": (bytes(range(128, 256)), "unknown kind"),
    "safetensors_long_header": (safetensors_with({"a": entry()}, length=2**60), "safetensors"),
    "safetensors_header_beyond_the_end": (safetensors_with({"a": entry()}, length=10_000), "safetensors"),
    "safetensors_no_json": (safetensors_with(b'{"a": oops'), "safetensors"),
    "safetensors_overlap": (safetensors_with({"a": entry(), "b": entry(offsets=(8, 24))}), "safetensors"),
    "safetensors_beyond_the_end": (safetensors_with({"a": entry(offsets=(0, 10**12), shape=(10**11,))}), "safetensors"),
    "safetensors_wrong_shape": (safetensors_with({"a": entry(shape=(5,))}), "safetensors"),
    "safetensors_bad_dtype": (safetensors_with({"a": entry(dtype="F99")}), "safetensors"),
    "safetensors_negative": (safetensors_with({"a": entry(offsets=(-16, 0))}), "safetensors"),
    "safetensors_without_tensors": (safetensors_with({}, b""), "no tensors"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_bytes_are_identified(place, capfd, name):
    content, message = BROKEN[name]
    place.path.write_bytes(content)
    error = refused(place.path, capfd)
    assert isinstance(error, TeacherError)
    assert message in str(error)


def weights_with(module, value, key="conv2.weight"):
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    weights[key].view(-1)[3] = value
    return weights


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", ["pt", "safetensors", "script", "export"])
def test_weights_that_are_not_finite(place, module, capfd, form, value):
    weights = weights_with(module, value)
    broken = create(ARCH).eval()
    broken.load_state_dict(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "pt":
            torch.save(weights, place.path)
        elif form == "safetensors":
            safetensors.torch.save_file(weights, place.path)
        elif form == "script":
            torch.jit.save(torch.jit.trace(broken, torch.rand(8, 1, 32, 32), check_trace=False), place.path)
        else:
            program = torch.export.export(broken, (torch.rand(8, 1, 32, 32),))
            place.path.write_bytes(bytes_of(lambda file: torch.export.save(program, file)))
    assert "conv2.weight" in str(refused(place.path, capfd))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_of_a_wrong_type(place, module, capfd, dtype):
    torch.save({key: tensor.to(dtype) for key, tensor in module.state_dict().items()}, place.path)
    assert "instead of real numbers" in str(refused(place.path, capfd))


def test_zip_bomb(place, capfd):
    with zipfile.ZipFile(place.path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        for number in range(8):
            archive.writestr(f"archive/data/{number}", bytes(2**24))
    assert "zip bomb" in str(refused(place.path, capfd))


def test_two_records_of_one_name(place, honest, capfd):
    place.path.write_bytes(honest["script"])
    with zipfile.ZipFile(place.path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"other")
    assert "two records" in str(refused(place.path, capfd))


def test_other_zip_archives(place, capfd):
    np.savez(place.path.with_suffix(".npz"), a=np.zeros(3))
    assert "a NumPy archive (.npz)" in str(refused(place.path.with_suffix(".npz"), capfd))


def test_a_script_without_forward(place, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Module()), place.path)
    assert "forward" in str(refused(place.path, capfd))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"", "config.json"),
        (b"\xff\xfe", "config.json"),
        (b"[" * 100_000, "config.json"),
        (b"[]", "no timm architecture"),
        (json.dumps({"architecture": "no_such_network"}).encode(), "unknown architecture"),
        (json.dumps({"architecture": ["x"]}).encode(), "no timm architecture"),
        (json.dumps({"architecture": ARCH, "num_classes": 10**9}).encode(), "num_classes is 1000000000"),
        (json.dumps({"architecture": ARCH, "num_classes": "10"}).encode(), "num_classes is '10'"),
        (json.dumps({"architecture": ARCH, "pretrained_cfg": {"std": [0]}}).encode(), "std is [0]"),
        (json.dumps({"architecture": ARCH, "pretrained_cfg": {"input_size": [1, 1e9, 2]}}).encode(), "input_size is"),
        (json.dumps({"architecture": ARCH, "model_args": {"widths": {"a": 1}}}).encode(), "plain values"),
        (json.dumps({"architecture": ARCH, "model_args": {"nonsense": 1}}).encode(), "nonsense"),
        (json.dumps({"architecture": ARCH, "model_args": {"pretrained_cfg": "x"}}).encode(), "loads other files"),
    ],
)
def test_hostile_configurations(tmp_path, honest, capfd, config, message):
    (tmp_path / "config.json").write_bytes(config)
    (tmp_path / "model.safetensors").write_bytes(honest["safetensors"])
    options = {"mean": None, "std": None, "input_size": None}
    assert message in str(refused(tmp_path, capfd, **options))


@pytest.mark.parametrize(
    "facts", ["oops", "[]", '{"arch": 3}', '{"arch": "lenet5_half", "mean": ["a"]}', '{"arch": "os.system"}']
)
def test_students_with_hostile_metadata(place, module, capfd, facts):
    safetensors.torch.save_file(module.state_dict(), place.path, {"dfkd": facts})
    refused(place.path, capfd, mean=None)


def test_paths_without_a_file(tmp_path, capfd):
    loop, dangling, fifo = tmp_path / "loop", tmp_path / "dangling", tmp_path / "fifo"
    loop.symlink_to(loop)
    dangling.symlink_to(tmp_path / "nowhere")
    os.mkfifo(fifo)
    for path in (loop, dangling, fifo, tmp_path / "missing.pt", "x" * 5000):
        assert isinstance(refused(path, capfd), UsageError)


def test_folders_without_a_network(tmp_path, capfd):
    assert "config.json" in str(refused(tmp_path, capfd))
    (tmp_path / "config.json").write_text(json.dumps({"architecture": ARCH}))
    assert "no weights file" in str(refused(tmp_path, capfd))
