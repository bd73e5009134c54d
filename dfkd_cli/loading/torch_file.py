"""Opens torch.save files without executing code in them."""

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfkd_cli.errors import DfkdError, TeacherError, first_line
from dfkd_cli.loading.archive import check_archive
from dfkd_cli.loading.failures import EXPORT_LINES, damaged_file, quiet
from dfkd_cli.loading.sniff import Form

# Types without code: timm's training script stores its arguments as a Namespace, other scripts store the best accuracy
# as a numpy number, whose module had another name before numpy 2.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
_ULTRALYTICS = ("ultralytics.", "models.yolo.", "models.common.")  # the last two in YOLOv5


def read_torch_file(path: Path, form: Form, trust_pickle: bool) -> Any:
    """Return the object in `path`, on the CPU: usually a state dict or a dict that contains one.

    Raises TeacherError for damaged files, and for files that would run code unless `trust_pickle`.
    """
    if form is Form.TORCH_ZIP:
        check_archive(path)
    try:
        with damaged_file(path, form.value), quiet(), torch.serialization.safe_globals(_HARMLESS):
            return _load_weights(path)
    except pickle.UnpicklingError as error:
        if not trust_pickle:
            raise _refusal(path, error) from error
    with damaged_file(path, form.value), quiet(), path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=False)


def _load_weights(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # given a path, torch.load checks the extension first
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _UnsafeFileError(str(error)) from error


class _UnsafeFileError(DfkdError, pickle.UnpicklingError):
    """Passes through `damaged_file`, because the file can be intact and only unsafe."""


def _refusal(path: Path, error: pickle.UnpicklingError) -> TeacherError:
    """Return the error for a file that weights_only=True rejects: unsafe when it names a class, else damaged."""
    names = re.findall(r"GLOBAL ([\w.]+)", str(error)) or re.findall(
        r"Trying to (?:load|call|instantiate)\D* ([\w.]+)", str(error)
    )
    if not names:
        return TeacherError(f"{path} looks like a torch.save file but cannot be read: {_cause(error)}")
    if names[0].startswith(_ULTRALYTICS):
        return TeacherError(
            f"{path} is an Ultralytics checkpoint with a pickled module ({names[0]}), which runs code when opened; "
            f"export it there: `YOLO('{path.name}').export(format='torchscript')`, and give dfkd that file "
            "with --input-size, --mean and --std"
        )
    return TeacherError(
        f"{path} contains a pickled Python object ({names[0]}), which runs code when opened; {EXPORT_LINES}, "
        "or add --trust-pickle if you trust whoever made the file"
    )


def _cause(error: pickle.UnpicklingError) -> str:
    """Return the reason without torch's advice to use weights_only=False."""
    match = re.search(r"WeightsUnpickler error: (.*)", str(error))
    return match.group(1)[:200] if match else first_line(error)
