"""Surgery on an exported program's graph: evaluation mode, any device, and intermediate values as outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.graph import CodeGen
from torch.fx.node import Argument, map_aggregate

from dfkd_cli.errors import TeacherError

aten = torch.ops.aten

# Where BatchNorm operations take (running mean, running variance, training flag); None: the operation has no flag.
NORMS: dict[object, tuple[int, int, int | None]] = {
    aten.batch_norm.default: (3, 4, 5),
    aten.native_batch_norm.default: (3, 4, 5),
    aten.cudnn_batch_norm.default: (3, 4, 5),
    aten.miopen_batch_norm.default: (3, 4, 5),
    aten._native_batch_norm_legit.default: (3, 4, 5),
    aten._native_batch_norm_legit_no_training.default: (3, 4, None),
}
TRAINING_NORMS = {
    aten._native_batch_norm_legit_functional.default,
    aten._batch_norm_with_update.default,
    aten._batch_norm_with_update_functional.default,
}
DROPOUT_FLAG = 2
DROPOUTS = {
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.feature_dropout_.default,
    aten.alpha_dropout.default,
    aten.alpha_dropout_.default,
    aten.native_dropout.default,
}
# Which operations multiply by weights, and where in their arguments the activation is.
MULTIPLICATIONS: dict[object, tuple[str, int]] = {
    aten.linear.default: ("linear", 0),
    aten.addmm.default: ("linear", 1),
    aten.matmul.default: ("linear", 0),
    aten.mm.default: ("linear", 0),
    aten.conv1d.default: ("conv", 0),
    aten.conv2d.default: ("conv", 0),
    aten.conv3d.default: ("conv", 0),
    aten.conv2d.padding: ("conv", 0),
    aten.convolution.default: ("conv", 0),
}
TRAINING_MODE_NOTE = (
    "the network was saved in training mode: its BatchNorm and dropout layers are switched to evaluation mode"
)
HOW_TO_EXPORT = """export it in evaluation mode:
  program = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
  torch.export.save(program, "teacher.pt2")"""


def recorded_shape(program: ExportedProgram) -> tuple[int | None, ...]:
    """The shape (B, C, H, W) a program was recorded with, None for each length that may vary.

    Raises TeacherError when it takes anything but one batch of images.
    """
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise TeacherError(f"the program takes {len(inputs)} inputs: export a module that takes images only")
    name = next(iter(inputs))
    images = next(node for node in program.graph_module.graph.nodes if node.name == name)
    shape = images.meta["val"].shape
    if len(shape) != 4:
        raise TeacherError(f"the program takes an input of shape {list(shape)}: images [B, C, H, W] are needed")
    return tuple(length if isinstance(length, int) else None for length in shape)


def evaluation_module(program: ExportedProgram) -> tuple[fx.GraphModule, list[str]]:
    """A plain module of the program's graph in evaluation mode, images -> a flat tuple, and notes for the user.

    Raises TeacherError when it was recorded in training mode in a way that cannot be undone.
    """
    unlifted = program.module()
    graph = fx.Graph()
    output = graph.graph_copy(unlifted.graph, {})
    graph.output(output)
    # Without the codegen of torch.export inputs and outputs are flat, and the module has no methods that refuse eval().
    graph.set_codegen(CodeGen())
    for node in list(graph.nodes):
        if node.op == "call_module" or node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)  # guards for the recorded batch size, device and type
    notes = [TRAINING_MODE_NOTE] if _switch_to_evaluation(graph) else []
    if any(isinstance(node.target, torch._ops.HigherOrderOperator) for node in graph.nodes):
        notes.append("some of the network's layers are inside control flow or no_grad blocks and cannot be observed")
    _let_autocast_see_convolutions(graph)
    _follow_device(graph)
    return fx.GraphModule(unlifted, graph), notes


def keeps_statistics(node: fx.Node) -> bool:
    """Whether this is a BatchNorm call with running statistics."""
    arguments: Any = node.args
    return node.target in NORMS and all(arguments[i] is not None for i in NORMS[node.target][:2])


def with_outputs(module: fx.GraphModule, nodes: Sequence[fx.Node]) -> fx.GraphModule:
    """The same module, but its graph returns the values of these nodes after its own outputs."""
    copies: dict[fx.Node, fx.Node] = {}
    graph = fx.Graph()
    returned: Any = graph.graph_copy(module.graph, copies)
    graph.output((*returned, *(copies[node] for node in nodes)))
    return fx.GraphModule(module, graph)


def _switch_to_evaluation(graph: fx.Graph) -> bool:
    """Turns every training flag off; whether one was recorded as on."""
    was_on = False
    for node in graph.nodes:
        if node.target in TRAINING_NORMS:
            raise TeacherError(f"the program was recorded in training mode ({node.target}): {HOW_TO_EXPORT}")
        flag: Any = DROPOUT_FLAG if node.target in DROPOUTS else None
        if keeps_statistics(node):
            flag = NORMS[node.target][2]
        if flag is not None:
            was_on |= bool(node.args[flag])
            node.update_arg(flag, False)
    return was_on


def _let_autocast_see_convolutions(graph: fx.Graph) -> None:
    """Names convolutions by their dimensions: on a CPU autocast leaves the general operator in single precision."""
    named = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
    for node in graph.nodes:
        if node.target is not aten.convolution.default:
            continue
        inputs, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
        if not transposed:
            node.target = named[len(stride)]
            node.args = (inputs, weight, bias, stride, padding, dilation, groups)


def _follow_device(graph: fx.Graph) -> None:
    """Replaces devices that were written down when recording by the device of the images."""
    images = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(images):
        device = graph.call_function(getattr, (images, "device"))

    def replace(argument: Argument) -> Argument:
        return device if isinstance(argument, torch.device) else argument

    for node in graph.nodes:
        node.args = map_aggregate(node.args, replace)
        node.kwargs = map_aggregate(node.kwargs, replace)
    if not device.users:
        graph.erase_node(device)
