"""ONNX files as networks, run by onnxruntime on the CPU. They need the optional extra `export`."""

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfkd_cli.errors import UsageError
from dfkd_cli.networks.base import Network, NormStatistics, Outputs
from dfkd_cli.networks.classifier import Classifier, InputSpec, Origin
from dfkd_cli.networks.fixed_batch import forward_in_pieces
from dfkd_cli.networks.outputs import pick_logits
from dfkd_cli.networks.returned import Returned

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_ERRORS_ONLY = 3  # onnxruntime's log level


def require_onnx() -> None:
    """Raise UsageError naming the extra when one of its packages is not installed."""
    missing = [name for name in PACKAGES if not _is_installed(name)]
    if missing:
        raise UsageError(f"ONNX needs {', '.join(missing)}, not installed here: pip install 'dfkd[export]'")


class OnnxSession:
    """An ONNX file as a function on the CPU: images [B, C, H, W] -> first output."""

    def __init__(self, source: Path | bytes, threads: int = 0):
        """`source` is the file's path, beside which its weights can lie, or its content; 0 threads mean all cores.

        Raises ValueError for a file that does not take one batch of float32 images of a fixed size.
        """
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        content, model = (
            (source, onnx.load_from_string(source))
            if isinstance(source, bytes)
            else (str(source), onnx.load(source, load_external_data=False))
        )
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs = self.session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or not all(isinstance(length, int) for length in shape[1:]):
            raise ValueError(f"it does not take one batch of images of a fixed size, but {[i.shape for i in inputs]}")
        if inputs[0].type != "tensor(float)":
            raise ValueError(f"it takes a {inputs[0].type}; export it for images of type float32")
        self.input = inputs[0].name
        self.batch_size: int | None = shape[0] if isinstance(shape[0], int) else None  # None: any
        self.input_size: tuple[int, int, int] = (shape[1], shape[2], shape[3])
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        # The graph's initializers also hold constants that are no parameters, so the file's own count comes first.
        stated = self.metadata.get("parameters", "")
        self.parameters = int(stated) if stated.isdecimal() else _count_weights(model)
        self.quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Return all outputs of the file, by their names in it."""
        names = [output.name for output in self.session.get_outputs()]
        returned = self.session.run(names, {self.input: images.numpy()})
        return {name: torch.from_numpy(np.asarray(value)) for name, value in zip(names, returned, strict=True)}

    def __call__(self, images: Tensor) -> Tensor:
        return next(iter(self.outputs(images).values()))


class OnnxNetwork(Network):
    """An ONNX file as a network: it runs on the CPU, without gradients, and returns only logits."""

    def __init__(self, session: OnnxSession, output: str | None, num_classes: int | None):
        """`output` names the logits among several outputs."""
        super().__init__()
        self.session = session
        self.batch_size = session.batch_size
        self.output = output
        self._num_classes = num_classes

    @property
    def compilable(self) -> bool:
        """False: torch.compile cannot trace onnxruntime."""
        return False

    @property
    def norm_statistics(self) -> tuple[NormStatistics, ...]:
        """Empty: the BatchNorm layers of an ONNX file cannot be observed."""
        return ()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits [B, K] on the device of the inputs."""
        return forward_in_pieces(self._logits, inputs.float().cpu(), self.batch_size).to(inputs.device)

    def observe(self, inputs: Tensor) -> Outputs:
        """Return the logits alone."""
        return Outputs(self(inputs), (), None, ())

    def _logits(self, images: Tensor) -> Tensor:
        outputs = self.session.outputs(images.contiguous())
        returned = outputs if len(outputs) > 1 else next(iter(outputs.values()))
        return pick_logits(returned, len(images), self.output, self._num_classes)


class OnnxClassifier(Classifier):
    """A classifier that can be evaluated but not trained or distilled from."""

    def __init__(self, session: OnnxSession, output: str | None, spec: InputSpec, origin: Origin, returned: Returned):
        super().__init__(OnnxNetwork(session, output, spec.num_classes), spec, origin, returned)
        self.session = session

    def parameter_count(self) -> int:
        """Return the number of parameter values stated in the file's metadata, or else in its graph."""
        return self.session.parameters


def _count_weights(model: Any) -> int:
    """Return the number of weights in single precision or in 8 bits, without scales and zero points."""
    from onnx import TensorProto

    quantisers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    of_quantisers = {name for node in quantisers for name in node.input[1:]}
    kinds = (TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32)
    return sum(
        math.prod(weight.dims)
        for weight in model.graph.initializer
        if weight.data_type in kinds and weight.name not in of_quantisers
    )


def _is_installed(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
