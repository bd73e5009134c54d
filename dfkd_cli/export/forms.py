"""The files `dfkd export` writes: one way to make each, and the plainest way to run it again."""

import io
import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from dfkd_cli.loading.failures import quiet
from dfkd_cli.loading.script import FACTS_FILE
from dfkd_cli.networks.onnx_file import OnnxNetwork, require_extra, write_onnx

FormName = Literal["onnx", "torchscript", "pt2"]


class ExportForm(NamedTuple):
    """How one kind of file is made from (module, example images, dynamic batch, facts), and run."""

    suffix: str
    require: Callable[[], None]  # raises UsageError when a package is missing
    write: Callable[[nn.Module, Tensor, bool, dict[str, Any]], bytes]
    open: Callable[[bytes], Callable[[Tensor], Tensor]]


def write_torchscript(module: nn.Module, images: Tensor, dynamic_batch: bool, facts: dict[str, Any]) -> bytes:
    """A traced archive. Tracing has no word for a dynamic batch: whether other sizes work shows when they are tried."""
    content = io.BytesIO()
    with quiet("torch"), torch.no_grad():
        traced = cast(torch.jit.ScriptModule, torch.jit.trace(module, images, check_trace=False))
        torch.jit.save(traced, content, _extra_files={FACTS_FILE: json.dumps(facts)})
    return content.getvalue()


def open_torchscript(content: bytes) -> Callable[[Tensor], Tensor]:
    """The archive as a function on the CPU."""
    with quiet("torch"):
        return torch.jit.load(io.BytesIO(content), map_location="cpu")


def write_pt2(module: nn.Module, images: Tensor, dynamic_batch: bool, facts: dict[str, Any]) -> bytes:
    """A torch.export archive."""
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic_batch else None
    content = io.BytesIO()
    with quiet("torch"):
        program = torch.export.export(module, (images,), dynamic_shapes=shapes)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it holds the paths of this machine
        torch.export.save(program, content, extra_files={FACTS_FILE: json.dumps(facts)})
    return content.getvalue()


def open_pt2(content: bytes) -> Callable[[Tensor], Tensor]:
    """The archive as a function on the CPU."""
    with quiet("torch"):
        return torch.export.load(io.BytesIO(content)).module()


def _nothing() -> None:
    pass


EXPORT_FORMS: dict[FormName, ExportForm] = {
    "onnx": ExportForm(".onnx", require_extra, write_onnx, OnnxNetwork),
    "torchscript": ExportForm(".pt", _nothing, write_torchscript, open_torchscript),
    "pt2": ExportForm(".pt2", _nothing, write_pt2, open_pt2),
}
