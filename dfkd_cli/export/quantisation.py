"""Static quantisation of ONNX files by onnxruntime: weights and activations of 8 bits."""

import contextlib
import copy
import io
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dfkd_cli.errors import DfkdError
from dfkd_cli.loading.failures import quiet

Ranges = Literal["minmax", "entropy", "percentile"]
# x86-64 processors without VNNI add two products of 8 bits in 16, which saturates: a ResNet-8 lost 12 points there, and
# none elsewhere (benchmarks/notes/int8.md). With weights of 7 bits every processor computes the same.
WeightBits = Literal[7, 8]
OLDEST_OPSET = 13  # the first one whose DequantizeLinear has a scale per channel
_ERRORS_ONLY = 3  # onnxruntime's log level
_METHODS: dict[Ranges, str] = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
# With onnxruntime's own 128 bins, entropy has no range to choose from; its percentile makes the range of activations
# after ReLU symmetric, which wastes half of the 8 bits.
_HISTOGRAMS: dict[Ranges, dict[str, Any]] = {
    "minmax": {},
    "entropy": {"num_bins": 512, "num_quantized_bins": 128},
    "percentile": {"num_bins": 2048, "percentile": 99.999, "symmetric": False},
}
# 8 bits cost accuracy here and gain no speed: onnxruntime has no such kernels, or they are no bottleneck.
_IN_FP32 = ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "Softmax", "TopK", "ArgMax", "CumSum")
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Quantiser:
    """An ONNX file in single precision with the ranges of its activations, which `quantise` writes in 8 bits.

    Attributes:
        layers: The name of each layer that can be quantised, as the network names its weights, and of its node.
    """

    def __init__(self, content: bytes, batches: Iterable[np.ndarray], ranges: Ranges, weight_bits: WeightBits):
        """`batches` are inputs of the file, float32 [B, C, H, W]. Raises DfkdError for an opset that is too old."""
        import onnx

        self.weight_bits = weight_bits
        self.metadata = {entry.key: entry.value for entry in _checked(content).metadata_props}
        with tempfile.TemporaryDirectory(prefix="dfkd-int8-") as name, _silent():
            folder = Path(name)
            self._model = _prepared(content, folder)
            onnx.save(self._model, folder / "prepared.onnx")
            self._ranges = _activation_ranges(folder / "prepared.onnx", batches, ranges)
        self.layers = _named_layers(self._model)

    def quantise(self, skip: Iterable[str] = ()) -> bytes:
        """Return the file with QuantizeLinear and DequantizeLinear nodes; the layers in `skip` stay as they are.

        Weights are int8 with a scale per output channel; 7 bits of them lie in [-64, 64]. Activations are uint8: on
        x86-64 int8 activations are slower than single precision.
        """
        import onnx
        from onnxruntime.quantization import QDQQuantizer, QuantType

        with _silent():
            quantiser = QDQQuantizer(
                copy.deepcopy(self._model),
                True,  # per channel
                self.weight_bits == 7,
                QuantType.QInt8,  # weights
                QuantType.QUInt8,  # activations
                copy.deepcopy(self._ranges),  # which the quantiser changes
                [],
                [self.layers[name] for name in skip],
                _operations(),
                {},
            )
            quantiser.quantize_model()
            quantiser.model.topological_sort()
        model = quantiser.model.model
        used = {node.domain for node in model.graph.node}
        kept = [entry for entry in model.opset_import if entry.domain in used]
        del model.opset_import[:]
        model.opset_import.extend(kept)
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, self.metadata)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


def _checked(content: bytes) -> Any:
    """Return the model. Raises DfkdError when its opset is too old for scales per channel."""
    import onnx

    model = onnx.load_from_string(content)
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST_OPSET:
        raise DfkdError(
            f"the ONNX file has opset {opset}, but int8 weights per channel need opset {OLDEST_OPSET} or newer; "
            "export it again with a newer opset"
        )
    return model


def _prepared(content: bytes, folder: Path) -> Any:
    """Return the model with folded BatchNorm layers, the types of all tensors, and a name for every node."""
    import onnx
    from onnxruntime.quantization import quant_pre_process

    (folder / "fp32.onnx").write_bytes(content)
    quant_pre_process(str(folder / "fp32.onnx"), str(folder / "folded.onnx"), skip_symbolic_shape=True)
    model = onnx.load(folder / "folded.onnx")
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"  # without a name a node cannot be left out
    return model


def _activation_ranges(path: Path, batches: Iterable[np.ndarray], ranges: Ranges) -> Any:
    """Return the range of each activation of the file at `path` over all batches."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    calibrator: Any = create_calibrator(
        path,
        _operations(),
        augmented_model_path=str(path.with_name("augmented.onnx")),
        calibrate_method=CalibrationMethod[_METHODS[ranges]],
        extra_options=_HISTOGRAMS[ranges],
    )
    name = calibrator.infer_session.get_inputs()[0].name
    for batch in batches:  # in a call each, because a call keeps the activations of all its batches
        calibrator.collect_data(_Inputs(iter([{name: batch}])))
    return calibrator.compute_data()


class _Inputs:
    """A CalibrationDataReader of onnxruntime, which is not imported for it."""

    def __init__(self, inputs: Iterator[dict[str, np.ndarray]]):
        self.inputs = inputs

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next inputs, None at the end."""
        return next(self.inputs, None)


def _operations() -> list[str]:
    """Return the operations that are quantised: those that onnxruntime can, without those that stay as they are."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry} - set(_IN_FP32))


def _named_layers(model: Any) -> dict[str, str]:
    """Return the node of each layer, by the name of its weight, or of its node where the weight has none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    layers: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type not in _LAYERS:
            continue
        weight = node.input[1] if node.input[1] in weights else ""
        named = weight.removesuffix(".weight") if weight.endswith(".weight") else node.name
        named = named.removeprefix("network.").removeprefix("module.")
        layers[node.name if named in layers else named] = node.name
    return layers


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress what onnxruntime's quantiser prints, logs and warns about inside the block."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    loggers = ("root", "onnxruntime.quantization.shape_inference")
    with contextlib.redirect_stdout(io.StringIO()), quiet(*loggers):
        yield
