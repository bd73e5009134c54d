"""Surgery on a TorchScript forward graph: a copy in evaluation mode that can return what its layers receive."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dfkd_cli.errors import TeacherError

# Forward hooks do not work on ScriptModules, so the graph itself is rewritten. Its node types have no public names.
Graph = torch._C.Graph
Node = torch._C.Node
Value = torch._C.Value

# Where BatchNorm operations take (running mean, running variance, training flag); None: the operation has no flag.
NORMS: dict[str, tuple[int, int, int | None]] = {
    "aten::batch_norm": (3, 4, 5),
    "aten::native_batch_norm": (3, 4, 5),
    "aten::cudnn_batch_norm": (3, 4, 5),
    "aten::miopen_batch_norm": (3, 4, 5),
    "aten::_batch_norm_impl_index": (3, 4, 5),
    "aten::_native_batch_norm_legit": (3, 4, 5),
    "aten::_native_batch_norm_legit_no_training": (3, 4, None),
}
DROPOUT_FLAG = 2
DROPOUTS = {
    f"aten::{name}{suffix}"
    for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
    for suffix in ("", "_")
}
# Which operations multiply by weights, and where in their arguments the activation is.
MULTIPLICATIONS = {
    "aten::linear": ("linear", 0),
    "aten::addmm": ("linear", 1),
    "aten::matmul": ("linear", 0),
    "aten::mm": ("linear", 0),
    "aten::conv2d": ("conv", 0),
    "aten::convolution": ("conv", 0),
    "aten::_convolution": ("conv", 0),
}
TRAINING_MODE_NOTE = (
    "the network was saved in training mode: its BatchNorm and dropout layers are switched to evaluation mode"
)


class Tap(NamedTuple):
    """A tensor to take out of a graph."""

    site: int  # the node's position in `walk(graph)`
    argument: int | None  # which of its arguments; None for its first result


class Constant(NamedTuple):
    """A tensor that was written into the graph."""

    tensor: Tensor
    learned: bool  # a weight, as far as one can tell: real numbers, no scalar, no running statistic


@dataclass(frozen=True)
class ScriptGraph:
    """A module's whole forward, called as function(module, images, *constants)."""

    graph: Graph
    constants: list[Constant]  # made inputs, so that they can move between devices
    notes: list[str]


def evaluation_graph(module: torch.jit.ScriptModule) -> ScriptGraph:
    """A copy of the forward graph with everything inlined and every layer in evaluation mode.

    Raises TeacherError when forward needs more than images, RuntimeError when torch cannot rewrite it.
    """
    graph = module.forward.graph.copy()
    torch._C._jit_pass_inline(graph)
    _bind_further_inputs(graph, module)
    _fold_attributes(graph, module)
    # Decides `if self.training` and its kind, so that a layer is not hidden in a branch that is never taken.
    torch._C._jit_pass_constant_propagation(graph)
    torch._C._jit_pass_peephole(graph)
    torch._C._jit_pass_dce(graph)
    notes = [TRAINING_MODE_NOTE] if _switch_to_evaluation(graph) else []
    if any(node.kind() in ("prim::CallMethod", "prim::CallFunction", "prim::fork") for node in walk(graph)):
        notes.append("some of the network's layers are called through an interface and cannot be observed")
    _follow_device(graph)
    constants = _constants_to_inputs(graph)
    graph.lint()
    return ScriptGraph(graph, constants, notes)


def walk(graph: Graph) -> Iterator[Node]:
    """Every node in the order of execution, nested blocks included; the same order in every copy of a graph."""

    def inside(block) -> Iterator[Node]:
        for node in block.nodes():
            yield node
            for nested in node.blocks():
                yield from inside(nested)

    return inside(graph)


def makes_tensor(node: Node) -> bool:
    """Whether the first result is an activation: a tensor that is neither a weight nor a constant."""
    outputs = list(node.outputs())
    written = node.kind() in ("prim::GetAttr", "prim::Constant", "prim::Uninitialized")
    return bool(outputs) and not written and outputs[0].type().kind() == "TensorType"


def keeps_statistics(node: Node) -> bool:
    """Whether this is a BatchNorm call with running statistics."""
    return node.kind() in NORMS and not any(node.inputsAt(i).node().mustBeNone() for i in NORMS[node.kind()][:2])


def tap(graph: Graph, taps: Sequence[Sequence[Tap]]) -> Callable:
    """A function that returns (what forward returns, one list of tensors per group of taps).

    A tensor joins its group's list when its node runs: also in a branch or a loop, from where a graph output could
    not be reached.
    """
    graph = graph.copy()
    tensors = torch._C.ListType(torch._C.TensorType.get())
    nodes = list(walk(graph))
    lists = []
    for group in taps:
        values = graph.create("prim::ListConstruct", [], 1)
        values.output().setType(tensors)
        graph.prependNode(values)
        lists.append(values.output())
        for site, argument in group:
            node = nodes[site]
            value = next(node.outputs()) if argument is None else node.inputsAt(argument)
            append = graph.create("aten::append", [values.output(), value], 1)
            append.output().setType(tensors)
            append.insertAfter(node) if argument is None else append.insertBefore(node)
    returned = next(graph.outputs())
    bundle = graph.create("prim::TupleConstruct", [returned, *lists], 1)
    bundle.output().setType(torch._C.TupleType([value.type() for value in [returned, *lists]]))
    graph.appendNode(bundle)
    graph.eraseOutput(0)
    graph.registerOutput(bundle.output())
    graph.lint()
    return torch._C._create_function_from_graph("observe", graph)


def leading_lengths(graph: Graph) -> set[int]:
    """The first number of every list of integers in the graph: among them the batch size of a `view(batch, -1)`."""
    lengths = set()
    for node in walk(graph):
        if node.kind() == "prim::ListConstruct" and node.inputsSize():
            first = node.inputsAt(0).node()
            if first.kind() == "prim::Constant" and first.hasAttribute("value") and first.kindOf("value") == "i":
                lengths.add(first.i("value"))
        elif node.kind() == "prim::Constant" and str(node.output().type()) == "List[int]":
            lengths.update(node.output().toIValue()[:1])
    return lengths


def _bind_further_inputs(graph: Graph, module: torch.jit.ScriptModule) -> None:
    """Fills the arguments after the images with their defaults."""
    arguments = module.forward.schema.arguments
    for argument in reversed(arguments[2:]):
        if not argument.has_default_value():
            raise TeacherError(
                f"the archive's forward needs an argument {argument.name} beside the images: export a module that "
                "takes images only"
            )
        with graph.insert_point_guard(next(graph.nodes())):
            constant = graph.insertConstant(argument.default_value)
        list(graph.inputs())[-1].replaceAllUsesWith(constant)
        graph.eraseInput(graph.param_node().outputsSize() - 1)


def _fold_attributes(graph: Graph, module: nn.Module) -> None:
    """Makes plain attributes such as `training` constants, unless the forward itself sets them."""
    assigned = {node.s("name") for node in walk(graph) if node.kind() == "prim::SetAttr"}
    for node in [node for node in walk(graph) if node.kind() == "prim::GetAttr"]:
        name = node.s("name")
        if name in assigned or node.output().type().kind() in ("ClassType", "TensorType"):
            continue
        path = _path(node)
        if path is None:
            continue
        value = False if name == "training" else _attribute(module, path)
        if type(value) in (type(None), bool, int, float, str):  # exactly these: an enum may inherit from str
            with graph.insert_point_guard(node):
                constant = graph.insertConstant(value)
            node.output().replaceAllUsesWith(constant)


def _path(node: Node) -> list[str] | None:
    """The attribute names that lead from the module to what a GetAttr node reads; None when it is no plain chain."""
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
    """Turns every training flag off; whether one was recorded as on."""
    was_on = False
    for node in walk(graph):
        flag = NORMS[node.kind()][2] if keeps_statistics(node) else DROPOUT_FLAG if node.kind() in DROPOUTS else None
        if flag is None:
            continue
        was_on |= node.inputsAt(flag).node().kind() == "prim::Constant" and bool(node.inputsAt(flag).toIValue())
        with graph.insert_point_guard(node):
            off = graph.insertConstant(False)
        node.replaceInput(flag, off)
    return was_on


def _follow_device(graph: Graph) -> None:
    """Replaces devices that tracing wrote down by the device of the images."""
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


def _constants_to_inputs(graph: Graph) -> list[Constant]:
    """Replaces the tensors a frozen or traced archive carries inside the graph by inputs; returns them in order."""
    statistics = {
        node.inputsAt(position).debugName()
        for node in walk(graph)
        if keeps_statistics(node)
        for position in NORMS[node.kind()][:2]
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
