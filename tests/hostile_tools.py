"""Helpers of the tests of hostile files: code that creates a marker file, and functions that alter archives."""

import io
import json
import pickle
import warnings
import zipfile
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from dfkd_cli.errors import DfkdError
from dfkd_cli.loading import LoadOptions, load_classifier

ARCH = "lenet5_half"
OPTIONS = {"arch": ARCH, "input_size": (1, 32, 32), "mean": (0.5,), "std": (0.5,)}


def create(name: str, **options: Any) -> Any:
    """Return a timm network, typed so that the type checker accepts its layers."""
    return timm.create_model(name, **options)


class Payload:
    """Creates a marker file when unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


class Place:
    """A folder for a hostile file, and the marker that its code creates."""

    def __init__(self, folder):
        self.path, self.folder, self.marker = folder / "teacher.pt", folder, folder / "executed"
        self.payload = pickle.dumps(Payload(self.marker), protocol=2)
        # Python source that creates the marker.
        self.code = f"open({str(self.marker)!r}, 'w')"


def bytes_of(save):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(buffer)
    return buffer.getvalue()


def honest_files(module):
    """Return the content of files of the same network in every form."""
    image, dynamic = torch.rand(16, 1, 32, 32), ({0: torch.export.Dim("batch", min=1, max=512)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (image,), dynamic_shapes=dynamic)
        trace = torch.jit.trace(module, image)
    weights = module.state_dict()
    return {
        "pt": bytes_of(lambda file: torch.save(weights, file)),
        "legacy": bytes_of(lambda file: torch.save(weights, file, _use_new_zipfile_serialization=False)),
        "script": bytes_of(lambda file: torch.jit.save(trace, file)),
        "export": bytes_of(lambda file: torch.export.save(program, file)),
        "safetensors": safetensors.torch.save(weights),
    }


def rezip(content, change):
    """Return the archive with records changed by `change(records)`, names without their root folder."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        root = archive.namelist()[0].partition("/")[0]
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(records)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, record in records.items():
            archive.writestr(f"{root}/{name}", record)
    return buffer.getvalue()


def edit_program(content, change):
    """Return the exported archive with its program's JSON changed by `change(program, graph)`."""

    def edit(records):
        program = json.loads(records["models/model.json"])
        change(program, program["graph_module"]["graph"])
        records["models/model.json"] = json.dumps(program).encode()

    return rezip(content, edit)


def edit_config(content, kind, change):
    def edit(records):
        name = f"data/{kind}/model_{kind}_config.json"
        config = json.loads(records[name])
        change(config["config"], records)
        records[name] = json.dumps(config).encode()

    return rezip(content, edit)


def refused(path, capfd, **options):
    """Return the error of loading `path`; check that it is one line and that nothing else is printed."""
    with pytest.raises(DfkdError) as caught:
        load_classifier(str(path), LoadOptions(**(OPTIONS | options)))
    assert caught.value.exit_code in (2, 3)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert capfd.readouterr() == ("", "")
    return caught.value
