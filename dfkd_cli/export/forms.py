"""File forms of `dfkd export`: for each, a function that writes it and one that opens it for the comparison."""

import io
import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from dfkd_cli.export.onnx import write_onnx
from dfkd_cli.loading.extra_files import FACTS_FILE
from dfkd_cli.loading.failures import quiet
from dfkd_cli.networks.onnx import OnnxSession, require_onnx
from dfkd_cli.networks.torchscript import read_script, write_script

FormName = Literal["onnx", "torchscript", "pt2"]


class ExportForm(NamedTuple):
    """Functions of one file form."""

    suffix: str
    require: Callable[[], None]  # raises UsageError when a package is missing
    write: Callable[[nn.Module, Tensor, bool, dict[str, Any]], bytes]  # (module, example images, dynamic batch, facts)
    open: Callable[[bytes], Callable[[Tensor], Tensor]]


def write_torchscript(module: nn.Module, images: Tensor, dynamic_batch: bool, facts: dict[str, Any]) -> bytes:
    """Return a traced archive.

    Tracing has no option for a dynamic batch; the comparison with the network shows whether other sizes work.
    """
    with quiet("torch"):
        return write_script(module, images, {FACTS_FILE: json.dumps(facts)})


def open_torchscript(content: bytes) -> Callable[[Tensor], Tensor]:
    """Return the archive as a function on the CPU."""
    with quiet("torch"):
        return read_script(io.BytesIO(content))


def write_pt2(module: nn.Module, images: Tensor, dynamic_batch: bool, facts: dict[str, Any]) -> bytes:
    """Return a torch.export archive."""
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic_batch else None
    content = io.BytesIO()
    with quiet("torch"):
        program = torch.export.export(module, (images,), dynamic_shapes=shapes)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it contains paths of this machine
        torch.export.save(program, content, extra_files={FACTS_FILE: json.dumps(facts)})
    return content.getvalue()


def open_pt2(content: bytes) -> Callable[[Tensor], Tensor]:
    """Return the archive as a function on the CPU."""
    with quiet("torch"):
        return torch.export.load(io.BytesIO(content)).module()


def _require_nothing() -> None:
    pass


EXPORT_FORMS: dict[FormName, ExportForm] = {
    "onnx": ExportForm(".onnx", require_onnx, write_onnx, OnnxSession),
    "torchscript": ExportForm(".pt", _require_nothing, write_torchscript, open_torchscript),
    "pt2": ExportForm(".pt2", _require_nothing, write_pt2, open_pt2),
}
