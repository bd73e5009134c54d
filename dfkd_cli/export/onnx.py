"""Writes ONNX files."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.loading.failures import quiet
from dfkd_cli.networks.returned import Returned

_INPUT, _BATCH = "images", "batch"
_OUTPUTS: dict[Returned, str] = {  # name of the file's output, by its form
    "logits": "logits",
    "softmax": "probabilities",
    "sigmoid": "probabilities",
    "score": "score",
    "probability": "probability",
}


def write_onnx(module: nn.Module, images: Tensor, dynamic_batch: bool, facts: dict[str, Any]) -> bytes:
    """Return the module as one ONNX file, checked by onnx; `facts` become its metadata, each as JSON.

    The file maps `images` to one output, whose name depends on facts["returned"].
    """
    import onnx

    shapes = ({0: _BATCH},) if dynamic_batch else None
    with quiet("torch", "onnxscript", "onnx_ir"):
        program = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            input_names=[_INPUT],
            output_names=["classes" if facts.get("class_map") else _OUTPUTS[facts["returned"]]],
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = program.model_proto
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        del node.metadata_props[:]  # stack traces with paths of this machine
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
