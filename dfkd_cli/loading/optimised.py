"""Archives that were optimised for inference: the call that wrote them is named, and the way back."""

import re
from pathlib import Path

from dfkd_cli.errors import TeacherError
from dfkd_cli.loading.failures import EXPORT_LINES

# What only one call writes, in TorchScript code, in pickled constants, or as the operators of a torch.export archive.
_CALLS: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (
        re.compile(rb"\bops\.prim\.ConstantMKLDNNTensor\b"),
        "torch.jit.optimize_for_inference",
        "which leaves the weights out of the file",
    ),
    (
        re.compile(rb"\btorch\.utils\.mkldnn\b|\btorch\.mkldnn_reorder_|\bprim\.mkldnn_convolution\b"),
        "torch.utils.mkldnn.to_mkldnn or torch.jit.optimize_for_inference",
        "whose oneDNN tensors pass no gradient",
    ),
    (
        re.compile(
            rb"torch[.\n]classes[.\n](xnnpack|vulkan|metal)\b|\bops\.(prepacked|vulkan_prepack|metal_prepack)\b"
        ),
        "torch.utils.mobile_optimizer.optimize_for_mobile",
        "whose packed weights pass no gradient",
    ),
    (
        re.compile(rb"torch[.\n]classes[.\n]tensorrt\b|\bops\.tensorrt\b"),
        "torch_tensorrt.compile",
        "whose engines run on one kind of GPU and pass no gradient",
    ),
    (
        re.compile(rb"\bops\.(torch_ipex|ipex_prepack|ipex)\b|torch[.\n]classes[.\n]ipex_prepack\b"),
        "intel_extension_for_pytorch.optimize",
        "whose packed weights pass no gradient",
    ),
    (
        re.compile(rb"torch[.\n]classes[.\n]neuron\w*\b|\bops\.neuron\w*\b"),
        "torch_neuron.trace",
        "whose code runs on one kind of accelerator",
    ),
    (
        re.compile(rb"\btorch\.ops\.quantized_decomposed\b"),
        "convert_pt2e",
        "whose quantized operators pass no gradient",
    ),
)
_CODE = (".py", ".pkl", "models/model.json")


def refuse_optimised(records: dict[str, bytes], path: Path) -> None:
    """Raise TeacherError when the records of an archive show a call whose result cannot be a teacher."""
    for name, content in records.items():
        if name.lower().endswith(_CODE):
            for mark, call, why in _CALLS:
                if mark.search(content):
                    raise TeacherError(
                        f"{path} was written after {call}, {why}; use the file from before that call, or {EXPORT_LINES}"
                    )
    if any("/data/aotinductor/" in f"/{name.lower()}" for name in records):
        raise TeacherError(
            f"{path} was written by torch._inductor.aoti_compile_and_package: it contains a compiled library, which "
            "would be executed and passes no gradient; write the exported program with torch.export.save"
        )
