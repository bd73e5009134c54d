"""Names files that other programs write, by their content, and the way from them to a teacher."""

import json
import re
from collections.abc import Collection
from pathlib import Path

from dfkd_cli.loading.failures import OTHER_FRAMEWORK, PT2_LINES

_CONVERTED = f"give the network that it was converted from: {PT2_LINES}"
_ENGINE = f"a TensorRT engine, compiled for one GPU; give the network that it was built from: {PT2_LINES}"
_NETWORKS = (".pt", ".pth", ".pt2", ".safetensors", ".ckpt", ".onnx")
# First bytes, and what a file with them is.
_STARTS = (
    (b"\x89HDF", f"an HDF5 file, as Keras writes .h5; {OTHER_FRAMEWORK}"),
    (b"\x12\x01\x00\x00\x00\x00\x00\x00", f"an MXNet parameter file; {OTHER_FRAMEWORK}"),
    (b"GGUF", f"a GGUF file (llama.cpp, ggml); {OTHER_FRAMEWORK}"),
    (b"lmgg", f"a ggml file; {OTHER_FRAMEWORK}"),
    (b"ptrt", _ENGINE),
    (b"ftrt", _ENGINE),
    (b"7767517\n", f"an ncnn parameter file; {_CONVERTED}"),
    (b"\x00\x00\x00\x00\x02\x00\x00\x00", f"a Darknet weights file; {OTHER_FRAMEWORK}"),
)
_TENSORFLOW = (b"Placeholder", b"Const", b"VarHandleOp", b"VariableV2", b"NoOp")
_CAFFE = (b"Convolution", b"InnerProduct", b"BatchNorm")
# Formats without a mark of their own: what the extension says of data that is nothing else.
_EXTENSIONS = {
    ".pdparams": f"a PaddlePaddle parameter file; {OTHER_FRAMEWORK}",
    ".pdiparams": f"a PaddlePaddle parameter file; {OTHER_FRAMEWORK}",
    ".pdmodel": f"a PaddlePaddle model; {OTHER_FRAMEWORK}",
    ".distcp": "one part of a distributed checkpoint (torch.distributed.checkpoint); give its folder to see how it is "
    "joined",
    ".index": f"the index of a TensorFlow checkpoint; {OTHER_FRAMEWORK}",
    ".mnn": f"an MNN model; {_CONVERTED}",
    ".rknn": f"an RKNN model; {_CONVERTED}",
}


def foreign_file(head: bytes, path: Path) -> str | None:
    """Return what a file of another program is and how its network becomes a teacher; None when it is not known.

    `head` is the first few thousand bytes.
    """
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head[4:8] == b"TFL3":
        return f"a TensorFlow Lite file (.tflite), converted for phones; {OTHER_FRAMEWORK}"
    if b"ptrt" in head[:4096] and head[4:5] == b"{":  # Ultralytics writes its metadata in front
        return _ENGINE
    return _protocol_buffer(head, path) or _msgpack(head) or _text(head) or _by_name(head, path)


def starts_like_onnx(head: bytes) -> bool:
    """Return whether a file starts like an ONNX ModelProto: format version, then producer name or graph.

    A SavedModel of TensorFlow and a Core ML model start with a version too; a message follows, which is no text.
    """
    if len(head) <= 3 or head[0] != 0x08 or not 0 < head[1] < 64 or head[2] not in b"\x12\x3a\x42":
        return False
    name = head[4 : 4 + head[3]]
    return head[2] != 0x12 or (head[3] < 0x80 and all(32 <= byte < 127 for byte in name))


def foreign_archive(names: Collection[str]) -> str | None:
    """Return what a zip archive with these records is, and how a network in it becomes a teacher; None when unknown."""
    leaves = {name.rpartition("/")[2] for name in names}
    if "model.weights.h5" in leaves:
        return f"a Keras archive (.keras); {OTHER_FRAMEWORK}"
    if "MAR-INF/MANIFEST.json" in names:
        return "a TorchServe archive (.mar); unpack it, and give dfkd the weights or the TorchScript file in it"
    if any(".data/extern_modules" in name for name in names):
        return f"a torch.package archive, which runs code when opened; load it yourself and {PT2_LINES}"
    if "Manifest.json" in leaves and any("com.apple.CoreML" in name for name in names):
        return f"a Core ML package; {_CONVERTED}"
    if any(leaf.endswith(".npy") for leaf in leaves):
        return f"a NumPy archive (.npz); load its arrays into the PyTorch network, then {PT2_LINES}"
    networks = sorted(name for name in names if name.endswith(_NETWORKS))
    if networks:
        return f"a zip archive that contains {networks[0]}; unpack it first, and give that file"
    if any(leaf.endswith(".py") for leaf in leaves):
        return f"a zip archive of source code; unpack it, build the network with its weights, and {PT2_LINES}"
    return None


def _protocol_buffer(head: bytes, path: Path) -> str | None:
    if head[:1] == b"\x08" and head[2:3] == b"\x12" and 0 < head[1] < 32 and not starts_like_onnx(head):
        if head[1] == 1 and path.suffix != ".mlmodel":
            return f"the graph of a TensorFlow SavedModel (saved_model.pb); {OTHER_FRAMEWORK}"
        return f"a Core ML model (.mlmodel); {_CONVERTED}"
    if head[:1] != b"\x0a":
        return None
    if path.suffix == ".pdmodel" or (b"feed" in head and b"fetch" in head):
        return f"a PaddlePaddle model (.pdmodel); {OTHER_FRAMEWORK}"
    if any(word in head for word in _TENSORFLOW):
        return f"a TensorFlow graph (frozen .pb or .meta); {OTHER_FRAMEWORK}"
    return f"a Caffe model; {OTHER_FRAMEWORK}" if any(word in head for word in _CAFFE) else None


def _msgpack(head: bytes) -> str | None:
    """Return the name for a map whose first key is a short text, as flax writes it."""
    start = 3 if head[:1] == b"\xde" else 1
    length = head[start] - 0xA0 if len(head) > start else 0
    key = head[start + 1 : start + 1 + length]
    if head[:1] not in (b"\xde", *(bytes([byte]) for byte in range(0x81, 0x90))) or not 0 < length < 32:
        return None
    text = len(key) == length and re.fullmatch(rb"[\w.\-/ ]+", key)
    return f"a msgpack file, as flax (JAX) writes it; {OTHER_FRAMEWORK}" if text else None


def _text(head: bytes) -> str | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"(<\?xml[^>]*>\s*)?<net\s", text):
        return f"the graph of an OpenVINO model (.xml beside .bin); {_CONVERTED}"
    if not text.startswith(b"{"):
        return None
    if b'"arg_nodes"' in head or (b'"nodes"' in head and b'"op"' in head):
        return f"the graph of an MXNet model; {OTHER_FRAMEWORK}"
    if b'"weight_map"' in head:
        return "the index of weights that are split into several files; join them with torch.save into one state dict"
    if b'"class_name"' in head or b'"modelTopology"' in head:
        return f"the description of a Keras model; {OTHER_FRAMEWORK}"
    return f"a PaddlePaddle model (.json); {OTHER_FRAMEWORK}" if b'"base_code"' in head[:200] else None


def _by_name(head: bytes, path: Path) -> str | None:
    if re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        return f"the values of a TensorFlow checkpoint; {OTHER_FRAMEWORK}"
    if path.suffix == ".bin" and _is_openvino(path.with_suffix(".xml")):
        return f"the weights of an OpenVINO model; {_CONVERTED}"
    return f"a PaddlePaddle parameter file; {OTHER_FRAMEWORK}" if _is_paddle(head) else _EXTENSIONS.get(path.suffix)


def _is_paddle(head: bytes) -> bool:
    return head.startswith(b"\x80") and b"StructuredToParameterName@@" in head


def _is_openvino(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return re.match(rb"\s*(<\?xml[^>]*>\s*)?<net\s", file.read(500)) is not None
    except OSError:
        return False


def transformers_class(config: object) -> str | None:
    """Return the class of network that a configuration of Hugging Face transformers names; None for another one."""
    if not isinstance(config, dict) or not (config.get("model_type") or config.get("architectures")):
        return None
    named = config.get("architectures")
    return str(named[0])[:80] if isinstance(named, list) and named else json.dumps(config.get("model_type"))[:80]
