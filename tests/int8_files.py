"""Networks with calibration images beside them, for the tests of files of 8 bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dfkd_cli.evaluation.calibration import CALIBRATION_FILE, Calibration, write_calibration
from dfkd_cli.export.probes import shaped_noise
from dfkd_cli.networks.classifier import Classifier, InputSpec

onnx: Any = pytest.importorskip("onnx", reason="needs the extra 'export'")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
SPEC = InputSpec((1, 8, 8), (0.4,), (0.3,), 3)
LOOK = ("--input-size", "1x8x8", "--mean", "0.4", "--std", "0.3")
IMAGES = 200


def save_fragile(path: Path) -> Path:
    """Save an ONNX file whose head cannot have 8 bits: its first weights are large, for inputs that are always 0.

    It is for images that LOOK describes. Returns the path.
    """
    rng = np.random.default_rng(0)
    body, head = rng.normal(size=(8, 1, 3, 3)), rng.normal(size=(8 * 16, 3))
    body[0], head[:16] = 0.0, 1000.0
    operations = [
        helper.make_node("Conv", ["images", "body.weight"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["map"], ["features"]),
        helper.make_node("Flatten", ["features"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head.weight"], ["logits"]),
    ]
    return _save(path, operations, {"body.weight": body, "head.weight": head}, 3, 18)


def save_linear(path: Path, classes: int = 3, opset: int = 18) -> Path:
    """Save one linear layer as an ONNX file for images that LOOK describes; return the path."""
    weight = np.random.default_rng(0).normal(size=(64, classes))
    operations = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["logits"]),
    ]
    return _save(path, operations, {"weight": weight}, classes, opset)


def _save(path: Path, operations: list[Any], weights: dict[str, np.ndarray], classes: int, opset: int) -> Path:
    held = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    shapes = {"images": ["batch", *SPEC.size], "logits": ["batch", classes]}
    images, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = helper.make_graph(operations, "network", [images], [logits], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    path.write_bytes(model.SerializeToString())
    return path


def calibrate_beside(folder: Path, classifier: Classifier | None = None, images: int = IMAGES) -> Path:
    """Write calibration images of SPEC into the folder, with the logits of a network; return the path."""
    shown = (shaped_noise(SPEC, images) * 255.0).round()
    with torch.no_grad():
        logits = torch.zeros(images, 3) if classifier is None else classifier(shown / 255.0)
    sha256 = "" if classifier is None or classifier.origin.sha256 is None else classifier.origin.sha256
    write_calibration(Calibration(shown.to(torch.uint8), logits, "synthetic", sha256, "0"), folder / CALIBRATION_FILE)
    return folder / CALIBRATION_FILE
