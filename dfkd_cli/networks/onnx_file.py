"""ONNX files: written from a module, and run by onnxruntime. Both need the optional extra `export`."""

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dfkd_cli.errors import TeacherError, UsageError, first_line
from dfkd_cli.loading.failures import quiet
from dfkd_cli.networks.returned import Returned

EXTRA = ("onnx", "onnxruntime", "onnxscript")
INPUT, BATCH = "images", "batch"
OUTPUTS: dict[Returned, str] = {  # its name, by what it is
    "logits": "logits",
    "softmax": "probabilities",
    "sigmoid": "probabilities",
    "score": "score",
    "probability": "probability",
}
_ERRORS_ONLY = 3  # onnxruntime's log level


def require_extra() -> None:
    """Raises UsageError naming the extra when one of its packages is not installed."""
    missing = [name for name in EXTRA if not _is_installed(name)]
    if missing:
        raise UsageError(f"ONNX needs {', '.join(missing)}, not installed here: pip install 'dfkd[export]'")


def write_onnx(module: nn.Module, images: Tensor, dynamic_batch: bool, facts: dict[str, Any]) -> bytes:
    """The module as one ONNX file, checked by onnx; `facts` become its metadata, each as JSON.

    It maps `images` to one output that is named by what facts["returned"] says of it.
    """
    import onnx

    shapes = ({0: BATCH},) if dynamic_batch else None
    with quiet("torch", "onnxscript", "onnx_ir"):
        program = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUTS[facts["returned"]]],
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = program.model_proto
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        del node.metadata_props[:]  # stack traces with the paths of this machine
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class OnnxNetwork:
    """An ONNX file as a function on the CPU, images -> first output, run by onnxruntime.

    `source` is its path, beside which its weights may lie, or its content; 0 threads are as many as it likes. Raises
    ValueError for a file that does not take one batch of images of a fixed size.
    """

    def __init__(self, source: Path | bytes, threads: int = 0):
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        content, read = (
            (source, onnx.load_from_string(source))
            if isinstance(source, bytes)
            else (str(source), onnx.load(source, load_external_data=False))
        )
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        given = self.session.get_inputs()
        shape = given[0].shape if len(given) == 1 else []
        if len(shape) != 4 or not all(isinstance(length, int) for length in shape[1:]):
            raise ValueError(f"it does not take one batch of images of a fixed size, but {[i.shape for i in given]}")
        self.input = given[0].name
        self.batch_size: int | None = shape[0] if isinstance(shape[0], int) else None  # None: any
        self.input_size: tuple[int, int, int] = (shape[1], shape[2], shape[3])
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        weights = read.graph.initializer
        told = self.metadata.get("parameters", "")  # the graph holds constants of other kinds too
        self.parameters = (
            int(told)
            if told.isdecimal()
            else sum(math.prod(weight.dims) for weight in weights if weight.data_type == onnx.TensorProto.FLOAT)
        )

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Everything the file returns, by the names it gives."""
        names = [output.name for output in self.session.get_outputs()]
        returned = self.session.run(names, {self.input: images.numpy()})
        return {name: torch.from_numpy(np.asarray(part)) for name, part in zip(names, returned, strict=True)}

    def __call__(self, images: Tensor) -> Tensor:
        return next(iter(self.outputs(images).values()))


def open_onnx(path: Path, threads: int = 0) -> OnnxNetwork:
    """The file, tried on noise. Raises UsageError without the extra, and TeacherError for what cannot be run."""
    require_extra()
    try:
        network = OnnxNetwork(path, threads)
        network(torch.rand(network.batch_size or 2, *network.input_size))
    except Exception as error:  # a stranger's file can fail in any way
        raise TeacherError(f"{path} cannot be run by onnxruntime: {first_line(error)}") from error
    return network


def _is_installed(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
