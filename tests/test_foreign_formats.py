"""A file or folder of another program is called what it is, with the way to a teacher, in one line."""

import sys
import types

import pytest
import safetensors.torch
import torch
from command_line import dfkd
from foreign_formats import ARCHIVES, FILES, FOLDERS, write_archive, write_file, write_folder
from loading_helpers import load
from torch import nn

from dfkd_cli.errors import TeacherError
from dfkd_cli.loading.foreign_files import starts_like_onnx

CASES = [
    *((write_file, name, words) for name, (_, words) in FILES.items()),
    *((write_archive, name, words) for name, (_, words) in ARCHIVES.items()),
    *((write_folder, name, words) for name, (_, words) in FOLDERS.items()),
]


@pytest.mark.parametrize(("write", "name", "words"), CASES, ids=[name for _, name, _ in CASES])
def test_it_is_named_with_the_way_in(tmp_path, write, name, words):
    with pytest.raises(TeacherError) as refused:
        load(write(tmp_path, name))
    said = str(refused.value)
    assert words in said
    assert "\n" not in said
    assert "ONNX" not in said or name == "onnx"
    assert any(way in said for way in ("torch.export.save", "give", "unpack", "torch.save", "join"))


def test_the_command_says_it_in_one_line(tmp_path):
    result = dfkd("evaluate", write_file(tmp_path, "saved_model.pb"), "--data", tmp_path)
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "TensorFlow SavedModel" in result.stderr


@pytest.mark.parametrize("head", [b"\x08\x0a\x12\x07pytorch\x1a\x05", b"\x08\x07\x3a\x10", b"\x08\x01\x12\x04onnx"])
def test_an_onnx_file_is_still_one(head):
    assert starts_like_onnx(head + bytes(20))


def test_weights_of_openvino_are_known_by_the_graph_beside_them(tmp_path):
    write_file(tmp_path, "net.xml")
    (tmp_path / "net.bin").write_bytes(bytes([7, 200]) * 40)
    with pytest.raises(TeacherError, match="weights of an OpenVINO model"):
        load(tmp_path / "net.bin")


def test_safetensors_in_the_layout_of_another_framework(tmp_path):
    safetensors.torch.save_file({"conv/kernel:0": torch.ones(3)}, tmp_path / "t.safetensors", {"format": "tf"})
    with pytest.raises(TeacherError, match="layout of TensorFlow"):
        load(tmp_path / "t.safetensors", arch="lenet5")


@pytest.mark.parametrize("name", ["ultralytics.nn.tasks", "models.yolo"])
def test_a_pickle_of_ultralytics_names_its_own_export(tmp_path, monkeypatch, name):
    file = types.ModuleType(name)
    kind = type("ClassificationModel", (nn.Module,), {"__module__": name})
    setattr(file, "ClassificationModel", kind)  # noqa: B010 - the type checker knows no such attribute
    for end in range(1, name.count(".") + 2):
        part = ".".join(name.split(".")[:end])
        monkeypatch.setitem(sys.modules, part, file)
    torch.save({"epoch": 1, "model": kind()}, tmp_path / "best.pt")
    with pytest.raises(TeacherError, match=r"Ultralytics checkpoint.*YOLO\('best.pt'\).export\(format='torchscript'\)"):
        load(tmp_path / "best.pt")


def test_a_student_with_exports_beside_it_is_a_student(tmp_path):
    (tmp_path / "student.onnx").write_bytes(b"")
    (tmp_path / "student.safetensors").write_bytes(b"")
    with pytest.raises(TeacherError, match=r"student.safetensors is empty"):
        load(tmp_path)
