"""The first bytes, records and folders of formats that other programs write, and what an error calls them."""

import io
import zipfile
from pathlib import Path

PB = b"\x08\x01\x12\x9f\x42\x0a\x1c\x0a\x04NoOp\x12\x05serve" + bytes(40)
# Name of the file -> (content, words of the error).
FILES: dict[str, tuple[bytes, str]] = {
    "saved_model.pb": (PB, "TensorFlow SavedModel"),
    "renamed.bin": (PB, "TensorFlow SavedModel"),
    "short.pb": (b"\x08\x01\x12\x09\x0a\x07\x22\x05serve", "TensorFlow SavedModel"),
    "frozen.pb": (b"\x0a\x20\x0a\x05input\x12\x0bPlaceholder*\x0b\x0a\x05dtype", "TensorFlow graph"),
    "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "Keras"),
    "model.tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite"),
    "model-0000.params": (b"\x12\x01" + bytes(30), "MXNet"),
    "net.mlmodel": (b"\x08\x04\x12\x40\x0a\x10\x0a\x05image\x1a\x07\x22\x05" + bytes(40), "Core ML"),
    "net.xml": (b'<?xml version="1.0"?>\n<net name="n" version="11"><layers>', "OpenVINO"),
    "model.pdmodel": (b"\x0a\x50\x08\x00\x10\xff\x0afeed\x0afetch" + bytes(40), "PaddlePaddle"),
    "model.pdiparams": (bytes(60), "PaddlePaddle"),
    "model.pdparams": (b"\x80\x04\x95\x10\x00}\x94\x8c\x06conv.w" + bytes(20), "PaddlePaddle"),
    "model.engine": (b"ptrt" + bytes(60), "TensorRT"),
    "best.engine": (b'\x0a\x00\x00\x00{"imgsz":8}ptrt' + bytes(60), "TensorRT"),
    "model.gguf": (b"GGUF\x03\x00\x00\x00" + bytes(40), "GGUF"),
    "flax_model.msgpack": (b"\x81\xa6params\x82\xa5conv1" + bytes(40), "flax"),
    "net.caffemodel": (b"\x0a\x05LeNet\xa2\x06\x20\x0a\x05conv1\x12\x0bConvolution" + bytes(40), "Caffe"),
    "yolo.weights": (b"\x00\x00\x00\x00\x02\x00\x00\x00" + bytes(40), "Darknet"),
    "__0_0.distcp": (b"PK\x03\x04" + bytes(40), "distributed checkpoint"),
    "model.safetensors.index.json": (b'{"metadata": {}, "weight_map": {"a": "b"}}', "split into several files"),
}
ARCHIVES: dict[str, tuple[tuple[str, ...], str]] = {
    "model.keras": (("metadata.json", "config.json", "model.weights.h5"), "Keras"),
    "net.mlpackage.zip": (("n/Manifest.json", "n/Data/com.apple.CoreML/model.mlmodel"), "Core ML"),
    "B_16.npz": (("cls.npy", "embedding/kernel.npy"), "NumPy archive"),
    "net.mar": (("MAR-INF/MANIFEST.json", "handler.py", "net.pt"), "TorchServe"),
    "package.pt": (("p/.data/extern_modules", "p/model.py"), "torch.package"),
    "results.zip": (("run/best.pth", "run/log.txt"), "contains run/best.pth; unpack it"),
    "code.zip": (("net/model.py", "net/train.py"), "source code"),
}
FOLDERS: dict[str, tuple[dict[str, str], str]] = {
    "saved model": ({"saved_model.pb": "", "variables/variables.index": ""}, "TensorFlow SavedModel"),
    "deepspeed": ({"latest": "global_step1", "global_step1/mp_rank_00_model_states.pt": ""}, "zero_to_fp32.py"),
    "zero": ({"mp_rank_00_model_states.pt": "", "zero_pp_rank_0_mp_rank_00_optim_states.pt": ""}, "DeepSpeed"),
    "dcp": ({".metadata": "", "__0_0.distcp": ""}, "format_utils dcp_to_torch"),
    "fsdp": ({"pytorch_model_fsdp_0/.metadata": "", "pytorch_model_fsdp_0/__0_0.distcp": ""}, "dcp_to_torch"),
    "transformers": (
        {"config.json": '{"architectures": ["ViTForImageClassification"]}', "model.safetensors": "x"},
        "transformers (ViTForImageClassification)",
    ),
    "type only": ({"config.json": '{"model_type": "resnet"}', "pytorch_model.bin": "x"}, 'transformers ("resnet")'),
    "split": ({"model.safetensors.index.json": "{}", "model-00001-of-00002.safetensors": ""}, "split into several"),
    "openvino": ({"net.xml": "", "net.bin": ""}, "OpenVINO"),
    "mxnet": ({"net-symbol.json": "", "net-0000.params": ""}, "MXNet"),
    "paddle": ({"inference.pdmodel": "", "inference.pdiparams": ""}, "PaddlePaddle"),
    "orbax": ({"_CHECKPOINT_METADATA": "", "manifest.ocdbt": ""}, "Orbax"),
    "tensorflow": ({"checkpoint": "", "m.ckpt.index": "", "m.ckpt.data-00000-of-00001": ""}, "TensorFlow checkpoint"),
    "core ml": ({"Manifest.json": "{}", "Data/com.apple.CoreML/model.mlmodel": ""}, "Core ML"),
    "unpacked": ({"data.pkl": "", "version": "", "data/0": ""}, "unpacked torch.save file"),
    "onnx": ({"model.onnx": ""}, "ONNX file model.onnx"),
}


def write_file(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(FILES[name][0])
    return path


def write_archive(folder: Path, name: str) -> Path:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for record in ARCHIVES[name][0]:
            archive.writestr(record, "x")
    (folder / name).write_bytes(content.getvalue())
    return folder / name


def write_folder(folder: Path, name: str) -> Path:
    for leaf, text in FOLDERS[name][0].items():
        path = folder / name / leaf
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / name
