"""Names folders that other programs write, and the way from them to a teacher."""

import json
from collections.abc import Collection
from pathlib import Path

from dfkd_cli.loading.failures import OTHER_FRAMEWORK, PT2_LINES
from dfkd_cli.loading.foreign_files import transformers_class
from dfkd_cli.loading.own_files import STUDENT_FILE

_MOST_ENTRIES = 10_000
_LARGEST_CONFIG = 2**24
_JAX = {"manifest.ocdbt", "_CHECKPOINT_METADATA", "flax_model.msgpack"}
# The name in a dfkd output folder, where timm's name is a copy, then timm's order of preference.
WEIGHTS = (STUDENT_FILE, "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
_INNER = ("pytorch_model_fsdp_0", "checkpoint", "model", "weights")  # folders of trainers that hold one of the above


def foreign_folder(folder: Path) -> str | None:
    """Return what a folder of another program is and how its network becomes a teacher; None when it is not known."""
    names = {entry.name for entry, _ in zip(folder.iterdir(), range(_MOST_ENTRIES), strict=False)}
    if STUDENT_FILE in names:  # exports of a student lie beside it
        return None
    return _sharded(folder, names) or _framework(names) or _transformers(folder, names)


def _sharded(folder: Path, names: Collection[str]) -> str | None:
    if any(name.endswith(".distcp") for name in names):
        return (
            "a distributed checkpoint (torch.distributed.checkpoint); join it with `python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} teacher.pt` and give teacher.pt"
        )
    if any(_is_deepspeed(name) for name in names):
        return (
            "a DeepSpeed checkpoint; join it with DeepSpeed's `python zero_to_fp32.py FOLDER OUTPUT`, and give the "
            "file that it writes, with --arch"
        )
    if any(name.endswith(".index.json") for name in names):
        return (
            "a folder whose weights are split into several files; load them in Python, "
            "`torch.save(model.state_dict(), 'teacher.pt')`, and give that file with --arch"
        )
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name in _INNER)
    return next((found for entry in inner if (found := _sharded(entry, {leaf.name for leaf in entry.iterdir()}))), None)


def _is_deepspeed(name: str) -> bool:
    return (
        name.endswith(("_model_states.pt", "_optim_states.pt"))
        or name.startswith("global_step")
        or name == "zero_to_fp32.py"
    )


def _framework(names: Collection[str]) -> str | None:
    if "saved_model.pb" in names or "saved_model.pbtxt" in names:
        return f"a TensorFlow SavedModel; {OTHER_FRAMEWORK}"
    if any(name.endswith(".index") for name in names) and any(".data-" in name for name in names):
        return f"a TensorFlow checkpoint; {OTHER_FRAMEWORK}"
    if set(names) & _JAX and "model.safetensors" not in names:
        return f"a flax or Orbax checkpoint (JAX); {OTHER_FRAMEWORK}"
    if "coremldata.bin" in names or {"Manifest.json", "Data"} <= set(names):
        return f"a Core ML package; give the network that it was converted from: {PT2_LINES}"
    if any(name.endswith((".pdmodel", ".pdiparams", ".pdparams")) for name in names):
        return f"a PaddlePaddle model; {OTHER_FRAMEWORK}"
    if any(name.endswith(".xml") and f"{name[:-4]}.bin" in names for name in names):
        return f"an OpenVINO model; give the network that it was converted from: {PT2_LINES}"
    if "model.json" in names and any(name.endswith(".bin") and "shard" in name for name in names):
        return f"a TensorFlow.js model; {OTHER_FRAMEWORK}"
    if any(name.endswith(".params") for name in names) and any(name.endswith("-symbol.json") for name in names):
        return f"an MXNet model; {OTHER_FRAMEWORK}"
    if "model.weights.h5" in names:
        return f"an unpacked Keras archive; {OTHER_FRAMEWORK}"
    if "MLmodel" in names:
        return "an MLflow model; give the file below its folder data/"
    if "model_index.json" in names:
        return "a diffusers pipeline, which is no classifier"
    if {"data.pkl", "data", "version"} <= set(names):
        return "an unpacked torch.save file; download it again without unpacking it"
    onnx = sorted(name for name in names if name.endswith(".onnx"))
    networks = [name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".pth", ".ckpt"))]
    return f"a folder with the ONNX file {onnx[0]}; give the file" if onnx and not networks else None


def _transformers(folder: Path, names: Collection[str]) -> str | None:
    path = folder / "config.json"
    if "config.json" not in names or path.stat().st_size > _LARGEST_CONFIG:
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # reading it as a configuration of timm says what is wrong
    kind = transformers_class(config)
    if kind is None or isinstance(config.get("architecture"), str):
        return None
    return (
        f"a model of Hugging Face transformers ({kind}); load it with AutoModelForImageClassification, wrap it so that "
        f"forward returns `.logits` (docs/teachers.md has the lines), and {PT2_LINES}"
    )
