"""Functions that write files that run code when unpickled or loaded as TorchScript, to place.path."""

import io
import json
import pickle
import tarfile
import warnings
from typing import Any

import pytest
import torch
from hostile_tools import ARCH, Payload, create, rezip
from torch import nn


def pickle_in_torch_zip(place, honest):
    torch.save({"state_dict": Payload(place.marker)}, place.path)


def pickle_in_old_torch_file(place, honest):
    torch.save(Payload(place.marker), place.path, _use_new_zipfile_serialization=False)


def pickle_beside_good_weights(place, honest):
    weights = create(ARCH).state_dict()
    torch.save({"state_dict": weights, "optimizer": Payload(place.marker)}, place.path)


def pickle_under_a_safetensors_name(place, honest):
    place.path = place.folder / "teacher.safetensors"
    torch.save(Payload(place.marker), place.path)


def bare_pickle(place, honest):
    place.path.write_bytes(place.payload)


def bare_pickle_of_protocol_zero(place, honest):
    place.path.write_bytes(pickle.dumps(Payload(place.marker), protocol=0))


def bare_pickle_of_protocol_five(place, honest):
    place.path.write_bytes(pickle.dumps(Payload(place.marker), protocol=5))


def pickled_network(place, honest):
    network: Any = nn.Linear(2, 2)
    network.payload = Payload(place.marker)
    torch.save(network, place.path)


def legacy_tar(place, honest):
    with tarfile.open(place.path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            info = tarfile.TarInfo(name)
            info.size = len(place.payload)
            archive.addfile(info, io.BytesIO(place.payload))


def pickle_as_script_data(place, honest):
    place.path.write_bytes(rezip(honest["script"], lambda records: records.update({"data.pkl": place.payload})))


def pickle_as_script_constants(place, honest):
    place.path.write_bytes(rezip(honest["script"], lambda records: records.update({"constants.pkl": place.payload})))


class WritesOnLoad(nn.Module):
    """TorchScript that writes a file when it is loaded, in `__setstate__`."""

    def __init__(self, target: str):
        super().__init__()
        self.target = target

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.target, True)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        torch.save(torch.zeros(1), state[0])
        self.target = state[0]
        self.training = state[1]


class WritesOnForward(nn.Module):
    def __init__(self, target: str):
        super().__init__()
        self.target = target

    def forward(self, x):
        torch.save(x, self.target)
        return x.flatten(1)[:, :10]


def _script(module, place):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), place.path)


def script_that_writes_on_load(place, honest):
    _script(WritesOnLoad(str(place.marker)), place)


def script_that_writes_on_forward(place, honest):
    _script(WritesOnForward(str(place.marker)), place)


def _rewrite_code(old, new):
    def make(place, honest):
        _script(WritesOnLoad(str(place.marker)), place)

        def change(records):
            for name in records:
                if name.endswith(".py"):
                    records[name] = records[name].replace(old.encode(), new.encode())

        place.path.write_bytes(rezip(place.path.read_bytes(), change))

    return make


script_with_spaced_name = _rewrite_code("torch.save", "torch  .\n  save")
script_with_commented_name = _rewrite_code("torch.save", "torch. # \n save")
script_with_aliased_module = _rewrite_code("torch.save((", "t = torch\n    t.save((")
script_with_getattr = _rewrite_code("torch.save", 'getattr(torch, "save")')
script_with_ops = _rewrite_code("torch.save", "ops.aten.save")
script_with_aliased_ops = _rewrite_code("torch.save(", "o = ops\n    o.aten.save(")
script_with_image_ops = _rewrite_code("torch.save(", "ops.image.write_file(")
script_with_from_file = _rewrite_code("torch.save(", "torch.from_file(")
script_with_native_class = _rewrite_code("torch.save(", "__torch__.torch.classes.dist_c10d.TCPStore(")


script_with_autograd = _rewrite_code("torch.save(", "torch.autograd.save(")
script_with_autograd_twice = _rewrite_code("torch.save(", "torch.autograd.autograd.save(")
script_with_aliased_autograd = _rewrite_code("torch.save((", "t = torch.autograd\n    t.save((")
script_with_autograd_of_ops = _rewrite_code("torch.save(", "ops.prim.autograd.save(")


def script_with_code_in_capitals(place, honest):
    """torch finds code records regardless of case."""
    _script(WritesOnLoad(str(place.marker)), place)

    def change(records):
        for name in [name for name in records if name.endswith(".py")]:
            records[name.removesuffix(".py") + ".PY"] = records.pop(name)

    place.path.write_bytes(rezip(place.path.read_bytes(), change))


def script_of_the_oldest_format(place, honest):
    place.path.write_bytes(rezip(honest["script"], lambda records: records.update({"model.json": b"{}"})))


def folder_with_pickled_weights(place, honest):
    place.path = place.folder / "hub"
    place.path.mkdir()
    (place.path / "config.json").write_text(json.dumps({"architecture": ARCH, "num_classes": 10}))
    torch.save({"state_dict": Payload(place.marker)}, place.path / "pytorch_model.bin")


def folder_that_points_elsewhere(place, honest):
    torch.save(Payload(place.marker), place.folder / "evil.pth")
    place.path = place.folder / "hub"
    place.path.mkdir()
    arguments = {"checkpoint_path": str(place.folder / "evil.pth")}
    (place.path / "config.json").write_text(json.dumps({"architecture": ARCH, "model_args": arguments}))
    (place.path / "model.safetensors").write_bytes(honest["safetensors"])


MAKERS = [
    pytest.param(pickle_in_torch_zip, id="pickle_in_torch_zip"),
    pytest.param(pickle_in_old_torch_file, id="pickle_in_old_torch_file"),
    pytest.param(pickle_beside_good_weights, id="pickle_beside_good_weights"),
    pytest.param(pickle_under_a_safetensors_name, id="pickle_under_a_safetensors_name"),
    pytest.param(bare_pickle, id="bare_pickle"),
    pytest.param(bare_pickle_of_protocol_zero, id="bare_pickle_of_protocol_zero"),
    pytest.param(bare_pickle_of_protocol_five, id="bare_pickle_of_protocol_five"),
    pytest.param(pickled_network, id="pickled_network"),
    pytest.param(legacy_tar, id="legacy_tar"),
    pytest.param(pickle_as_script_data, id="pickle_as_script_data"),
    pytest.param(pickle_as_script_constants, id="pickle_as_script_constants"),
    pytest.param(script_that_writes_on_load, id="script_that_writes_on_load"),
    pytest.param(script_that_writes_on_forward, id="script_that_writes_on_forward"),
    pytest.param(script_with_spaced_name, id="script_with_spaced_name"),
    pytest.param(script_with_commented_name, id="script_with_commented_name"),
    pytest.param(script_with_aliased_module, id="script_with_aliased_module"),
    pytest.param(script_with_getattr, id="script_with_getattr"),
    pytest.param(script_with_autograd, id="script_with_autograd"),
    pytest.param(script_with_autograd_twice, id="script_with_autograd_twice"),
    pytest.param(script_with_aliased_autograd, id="script_with_aliased_autograd"),
    pytest.param(script_with_autograd_of_ops, id="script_with_autograd_of_ops"),
    pytest.param(script_with_code_in_capitals, id="script_with_code_in_capitals"),
    pytest.param(script_with_ops, id="script_with_ops"),
    pytest.param(script_with_aliased_ops, id="script_with_aliased_ops"),
    pytest.param(script_with_image_ops, id="script_with_image_ops"),
    pytest.param(script_with_from_file, id="script_with_from_file"),
    pytest.param(script_with_native_class, id="script_with_native_class"),
    pytest.param(script_of_the_oldest_format, id="script_of_the_oldest_format"),
    pytest.param(folder_with_pickled_weights, id="folder_with_pickled_weights"),
    pytest.param(folder_that_points_elsewhere, id="folder_that_points_elsewhere"),
]
