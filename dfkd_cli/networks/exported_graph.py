"""Changes to an exported program's graph: evaluation mode, any device, and intermediate values as outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.graph import CodeGen

from dfkd_cli.errors import TeacherError
from dfkd_cli.networks.operations import (
    DROPOUT_FLAG,
    DROPOUTS,
    MULTIPLICATIONS,
    NORMS,
    TRAINING_MODE_NOTE,
    Multiplication,
    Norm,
)
from dfkd_cli.networks.recorded_device import device_of_images

aten = torch.ops.aten

OVERLOAD_NORMS: dict[object, Norm] = {getattr(aten, name).default: norm for name, norm in NORMS.items()}
OVERLOAD_MULTIPLICATIONS: dict[object, Multiplication] = {
    getattr(aten, name).default: multiplication for name, multiplication in MULTIPLICATIONS.items()
}
OVERLOAD_MULTIPLICATIONS[aten.conv2d.padding] = MULTIPLICATIONS["conv2d"]
_OVERLOAD_DROPOUTS = {
    aten.native_dropout.default,
    *(getattr(aten, f"{name}{suffix}").default for name in DROPOUTS for suffix in ("", "_")),
}
# These have no training flag that could be switched off.
_TRAINING_NORMS = {
    aten._native_batch_norm_legit_functional.default,
    aten._batch_norm_with_update.default,
    aten._batch_norm_with_update_functional.default,
}
_HOW_TO_EXPORT = """export it in evaluation mode:
  program = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
  torch.export.save(program, "teacher.pt2")"""


def recorded_shape(program: ExportedProgram) -> tuple[int | None, ...]:
    """Return the shape (B, C, H, W) that a program was recorded with, None for each dynamic length.

    Raises TeacherError when it takes anything but one batch of images.
    """
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise TeacherError(f"the program takes {len(inputs)} inputs; export a module that takes images only")
    name = next(iter(inputs))
    images = next(node for node in program.graph_module.graph.nodes if node.name == name)
    shape = images.meta["val"].shape
    if len(shape) != 4:
        raise TeacherError(f"the program takes an input of shape {list(shape)}: images [B, C, H, W] are needed")
    return tuple(length if isinstance(length, int) else None for length in shape)


def evaluation_module(program: ExportedProgram) -> tuple[fx.GraphModule, list[str]]:
    """Return a module of the program's graph in evaluation mode, images -> a flat tuple, and notes for the user.

    Raises TeacherError when it was recorded in training mode and cannot be switched to evaluation mode.
    """
    unlifted = program.module()
    graph = fx.Graph()
    output = graph.graph_copy(unlifted.graph, {})
    graph.output(output)
    # Without torch.export's code generator inputs and outputs are flat, and eval() does not raise an error.
    graph.set_codegen(CodeGen())
    for node in list(graph.nodes):
        if node.op == "call_module" or node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)  # checks of the recorded batch size, device and type
        elif node.target is aten.view.default:
            node.target = aten.reshape.default  # a view fails on the channels-last maps of a run
    notes = [TRAINING_MODE_NOTE] if _switch_to_evaluation(graph) else []
    if any(isinstance(node.target, torch._ops.HigherOrderOperator) for node in graph.nodes):
        notes.append("some of the network's layers are inside control flow or no_grad blocks and cannot be observed")
    _name_convolutions(graph)
    _follow_device(graph)
    return fx.GraphModule(unlifted, graph), notes


def has_statistics(node: fx.Node) -> bool:
    """Return whether this is a BatchNorm call with running statistics."""
    arguments: Any = node.args
    norm = OVERLOAD_NORMS.get(node.target)
    return norm is not None and arguments[norm.mean] is not None and arguments[norm.var] is not None


def with_outputs(module: fx.GraphModule, nodes: Sequence[fx.Node]) -> fx.GraphModule:
    """Return a copy of the module whose graph returns the values of `nodes` after its own outputs."""
    copies: dict[fx.Node, fx.Node] = {}
    graph = fx.Graph()
    returned: Any = graph.graph_copy(module.graph, copies)
    graph.output((*returned, *(copies[node] for node in nodes)))
    return fx.GraphModule(module, graph)


def _switch_to_evaluation(graph: fx.Graph) -> bool:
    """Set every training flag to False; return whether one was True."""
    was_on = False
    for node in graph.nodes:
        if node.target in _TRAINING_NORMS:
            raise TeacherError(f"the program was recorded in training mode ({node.target}): {_HOW_TO_EXPORT}")
        flag: Any = DROPOUT_FLAG if node.target in _OVERLOAD_DROPOUTS else None
        if has_statistics(node):
            flag = OVERLOAD_NORMS[node.target].training
        if flag is not None:
            was_on |= bool(node.args[flag])
            node.update_arg(flag, False)
    return was_on


def _name_convolutions(graph: fx.Graph) -> None:
    """Replace aten.convolution by conv1d, conv2d or conv3d: on a CPU autocast ignores the general operator."""
    named = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
    for node in graph.nodes:
        if node.target is not aten.convolution.default:
            continue
        inputs, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
        if not transposed:
            node.target = named[len(stride)]
            node.args = (inputs, weight, bias, stride, padding, dilation, groups)


def _follow_device(graph: fx.Graph) -> None:
    """Replace recorded devices by the device of the images."""
    device = device_of_images(graph)
    if not device.users:
        graph.erase_node(device)
