"""Rewrites a TorchScript forward graph: every layer inlined, in evaluation mode, on any device."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C import Node

from dfkd_cli.errors import TeacherError
from dfkd_cli.networks.operations import DROPOUT_FLAG, DROPOUTS, QUANTIZED, TRAINING_MODE_NOTE
from dfkd_cli.networks.torchscript.graph import NODE_NORMS, Graph, has_statistics, walk

_FROZEN = (
    "The archive has no weights besides constants, as torch.jit.freeze and torch.jit.optimize_for_inference leave it: "
    "BatchNorm layers were folded into convolutions and cannot be observed; the archive from before that call makes a "
    "better teacher."
)
_NODE_DROPOUTS = {f"aten::{name}{suffix}" for name in DROPOUTS for suffix in ("", "_")}


class Constant(NamedTuple):
    """A tensor that was a constant of the graph."""

    tensor: Tensor
    learned: bool  # presumably a weight: floating point, no scalar, no running statistic


@dataclass(frozen=True)
class ScriptGraph:
    """A module's whole forward as a graph with the inputs (module, images, *constants)."""

    graph: Graph
    constants: list[Constant]  # inputs, so that they can be moved between devices
    notes: list[str]


def evaluation_graph(module: torch.jit.ScriptModule) -> ScriptGraph:
    """Return a copy of the forward graph with everything inlined and every layer in evaluation mode.

    Raises TeacherError when forward needs more than images, and RuntimeError when torch cannot rewrite it.
    """
    graph = module.forward.graph.copy()
    torch._C._jit_pass_inline(graph)
    _bind_further_inputs(graph, module)
    _fold_attributes(graph, module)
    # Removes branches such as `if self.training` that are never taken, so that no layer is hidden in one.
    torch._C._jit_pass_constant_propagation(graph)
    torch._C._jit_pass_peephole(graph)
    torch._C._jit_pass_dce(graph)
    notes = [TRAINING_MODE_NOTE] if _switch_to_evaluation(graph) else []
    if any(node.kind() in ("prim::CallMethod", "prim::CallFunction", "prim::fork") for node in walk(graph)):
        notes.append("some of the network's layers are called through an interface and cannot be observed")
    _name_convolutions(graph)
    _reshape_any_format(graph)
    _follow_device(graph)
    _follow_device_calls(graph)
    notes += [QUANTIZED] if any(node.kind().startswith("quantized::") for node in walk(graph)) else []
    constants = _constants_to_inputs(graph)
    learned = any(constant.learned for constant in constants)
    if learned and not module.state_dict() and not any(has_statistics(node) for node in walk(graph)):
        notes.append(_FROZEN)
    graph.lint()
    return ScriptGraph(graph, constants, notes)


def _bind_further_inputs(graph: Graph, module: torch.jit.ScriptModule) -> None:
    """Replace the arguments after the images by their defaults; raise TeacherError for those that have none."""
    arguments = module.forward.schema.arguments
    if len(arguments) < 2:
        raise TeacherError("the archive's forward takes no images; export a module that takes images [B, C, H, W]")
    if arguments[1].type.kind() != "TensorType":
        raise TeacherError(
            f"the archive's forward takes {arguments[1].type} instead of a tensor; export a module that takes images "
            "[B, C, H, W]"
        )
    for argument in reversed(arguments[2:]):
        if not argument.has_default_value():
            raise TeacherError(
                f"the archive's forward needs the argument {argument.name} besides the images; export a module that "
                "takes images only"
            )
        with graph.insert_point_guard(next(graph.nodes())):
            constant = graph.insertConstant(argument.default_value)
        list(graph.inputs())[-1].replaceAllUsesWith(constant)
        graph.eraseInput(graph.param_node().outputsSize() - 1)


def _fold_attributes(graph: Graph, module: nn.Module) -> None:
    """Replace plain attributes such as `training` by constants, unless the forward assigns them."""
    assigned = {node.s("name") for node in walk(graph) if node.kind() == "prim::SetAttr"}
    for node in [node for node in walk(graph) if node.kind() == "prim::GetAttr"]:
        name = node.s("name")
        if name in assigned or node.output().type().kind() in ("ClassType", "TensorType"):
            continue
        path = _path(node)
        if path is None:
            continue
        value = False if name == "training" else _attribute(module, path)
        # Exactly these types: an enum can inherit from str.
        if type(value) in (type(None), bool, int, float, str, torch.device):
            with graph.insert_point_guard(node):
                constant = graph.insertConstant(value)
            node.output().replaceAllUsesWith(constant)


def _path(node: Node) -> list[str] | None:
    """Return the attribute names from the module to the value of a GetAttr node; None when it is no plain chain."""
    names: list[str] = []
    while node.kind() == "prim::GetAttr":
        names.insert(0, node.s("name"))
        node = node.inputsAt(0).node()
    return names if node.kind() == "prim::Param" else None


def _attribute(module: nn.Module, path: list[str]) -> object:
    value: object = module
    for name in path:
        value = getattr(value, name)
    return value


def _switch_to_evaluation(graph: Graph) -> bool:
    """Set every training flag to False; return whether one was True."""
    was_on = False
    for node in walk(graph):
        flag = DROPOUT_FLAG if node.kind() in _NODE_DROPOUTS else None
        if has_statistics(node):
            flag = NODE_NORMS[node.kind()].training
        if flag is None:
            continue
        was_on |= node.inputsAt(flag).node().kind() == "prim::Constant" and bool(node.inputsAt(flag).toIValue())
        with graph.insert_point_guard(node):
            off = graph.insertConstant(False)
        node.replaceInput(flag, off)
    return was_on


def _name_convolutions(graph: Graph) -> None:
    """Replace aten::_convolution by conv1d, conv2d or conv3d: on a CPU autocast ignores the general operator."""
    for node in [node for node in walk(graph) if node.kind() == "aten::_convolution"]:
        inputs, weight, bias, stride, padding, dilation, transposed, _, groups = list(node.inputs())[:9]
        dimensions = _length(stride.node())
        if transposed.node().kind() != "prim::Constant" or transposed.toIValue() or dimensions not in (1, 2, 3):
            continue
        arguments = [inputs, weight, bias, stride, padding, dilation, groups]
        named = graph.create(f"aten::conv{dimensions}d", arguments, 1)
        named.output().setType(node.output().type())
        named.insertBefore(node)
        node.output().replaceAllUsesWith(named.output())
        node.destroy()


def _reshape_any_format(graph: Graph) -> None:
    """Replace views of another shape by reshape, because a view fails on the channels-last maps of a run."""
    for node in [node for node in walk(graph) if node.kind() == "aten::view"]:
        inputs = list(node.inputs())
        if inputs[1].type().kind() != "ListType":  # a view of another type
            continue
        reshape = graph.create("aten::reshape", inputs, 1)
        reshape.output().setType(node.output().type())
        reshape.insertBefore(node)
        node.output().replaceAllUsesWith(reshape.output())
        node.destroy()


def _length(node: Node) -> int | None:
    """Return the length of a list in the graph, or None when it is computed."""
    if node.kind() == "prim::ListConstruct":
        return node.inputsSize()
    constant: Any = node.output().toIValue() if node.kind() == "prim::Constant" else None
    return len(constant) if isinstance(constant, list) else None


def _follow_device(graph: Graph) -> None:
    """Replace recorded devices by the device of the images."""
    images = list(graph.inputs())[1]
    recorded = [
        node
        for node in walk(graph)
        if node.kind() == "prim::Constant" and node.output().type().kind() == "DeviceObjType"
    ]
    for node in recorded:
        device = graph.create("prim::device", [images], 1)
        device.output().setType(node.output().type())
        graph.prependNode(device)
        node.output().replaceAllUsesWith(device.output())


def _follow_device_calls(graph: Graph) -> None:
    """Replace `x.cuda()` and `x.cpu()` of scripted code by `x.to(device of the images)`."""
    images = list(graph.inputs())[1]
    for node in [node for node in walk(graph) if node.kind() in ("aten::cuda", "aten::cpu")]:
        with graph.insert_point_guard(node):
            device = graph.create("prim::device", [images], 1)
            device.output().setType(torch._C.DeviceObjType.get())
            graph.insertNode(device)
            # The arguments after the device: dtype, non_blocking, copy.
            others = [graph.insertConstant(value) for value in (None, False, False)]
            moved = graph.create("aten::to", [node.inputsAt(0), device.output(), *others], 1)
            moved.output().setType(node.output().type())
            graph.insertNode(moved)
        node.output().replaceAllUsesWith(moved.output())
        node.destroy()


def _constants_to_inputs(graph: Graph) -> list[Constant]:
    """Replace the constant tensors of a frozen or traced graph by inputs; return the tensors in order."""
    statistics = {
        node.inputsAt(position).debugName()
        for node in walk(graph)
        if has_statistics(node)
        for position in NODE_NORMS[node.kind()][:2]
    }
    constants = []
    for node in walk(graph):
        if node.kind() != "prim::Constant" or node.output().type().kind() != "TensorType":
            continue
        tensor = node.t("value").detach()
        if tensor.layout == torch.strided:
            learned = tensor.is_floating_point() and tensor.ndim > 0 and node.output().debugName() not in statistics
            constants.append(Constant(tensor, learned))
            value = graph.addInput(f"constant_{len(constants)}")
            value.setType(torch._C.TensorType.get())
            node.output().replaceAllUsesWith(value)
    return constants
