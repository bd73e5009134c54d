"""Reads safetensors files: weights, and the metadata of dfkd students."""

import json
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from dfkd_cli.errors import TeacherError
from dfkd_cli.loading.failures import OTHER_FRAMEWORK, damaged_file

_OTHER_LAYOUTS = {"tf": "TensorFlow", "flax": "flax (JAX)", "mlx": "MLX"}  # as safetensors' metadata names them


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return weights by name, and the JSON object under the metadata key `dfkd`; None if the file is no dfkd student.

    Raises TeacherError for inconsistent headers, truncated files and metadata that is no JSON object.
    """
    with damaged_file(path, "a safetensors file"), safetensors.safe_open(path, framework="pt", device="cpu") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = file.metadata() or {}
    if not weights:
        raise TeacherError(f"{path} contains no tensors; save the weights again")
    if metadata.get("format") in _OTHER_LAYOUTS:
        name = _OTHER_LAYOUTS[metadata["format"]]
        raise TeacherError(f"{path} holds weights in the layout of {name}, not of PyTorch; {OTHER_FRAMEWORK}")
    return weights, _student_facts(metadata, path)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts in the header of the file. Raises TeacherError for a damaged header."""
    with damaged_file(path, "a safetensors file"), safetensors.safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _student_facts(metadata: dict[str, str], path: Path) -> dict[str, Any] | None:
    if "dfkd" not in metadata:
        return None
    with damaged_file(path, "a dfkd student"):
        facts = json.loads(metadata["dfkd"])
    if not isinstance(facts, dict) or not (isinstance(facts.get("arch"), str) or "graph" in facts):
        raise TeacherError(
            f"{path} looks like a dfkd student, but its metadata names no architecture; export it again with dfkd"
        )
    return facts
