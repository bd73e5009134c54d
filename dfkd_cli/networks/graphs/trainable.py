"""Makes a trainable module of ordinary layers from a network of any form."""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode

from dfkd_cli.errors import DfkdError, UsageError, first_line
from dfkd_cli.networks import EagerNetwork, ExportedNetwork, ScriptNetwork
from dfkd_cli.networks.base import Network
from dfkd_cli.networks.fixed_batch import largest_difference
from dfkd_cli.networks.forward_error import error_line
from dfkd_cli.networks.graphs.free_sizes import free_sizes
from dfkd_cli.networks.graphs.graph_operations import ALLOWED, makes_tensor, operation_name, usual_form
from dfkd_cli.networks.graphs.layer_calls import aten
from dfkd_cli.networks.graphs.layer_graph import LayerGraph, remove_unused
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.outputs import pick_logits
from dfkd_cli.networks.recorded_device import device_of_images
from dfkd_cli.networks.tasks import task_of
from dfkd_cli.networks.torchscript import trace_operations

_TOLERANCE = 1e-4  # relative to the largest logit: both compute in single precision
_TRIAL_BATCHES = (2, 5)
# A prime number that no size of a network is a multiple of, so that each multiple in a graph comes from the batch.
_UNMISTAKABLE_BATCH = 1009
# Without effect on what is computed. Detached values get gradients, because all of a student learns.
_NO_OPERATIONS = {
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.lift_fresh.default,
}
_CHECKS = {
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten._assert_async.msg,
}


class TrainableError(DfkdError):
    """A network that cannot be made a trainable module."""

    exit_code = UsageError.exit_code

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(
            f"this network cannot be its own student: {reason}; named students still work, such as "
            "--student cifar_resnet8"
        )


class PickedLogits(nn.Module):
    """A module that returns more than logits, with the choice of the logits."""

    def __init__(self, module: nn.Module, output: str | None, num_classes: int | None):
        super().__init__()
        self.module = module
        self.output = output
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        return pick_logits(self.module(images), images.shape[0], self.output, self.num_classes)


def trainable_module(network: Network, input_size: tuple[int, int, int]) -> nn.Module:
    """Return a module in training mode that computes the network's logits [B, K] of normalised images [B, C, H, W].

    It shares no tensors with the network and takes any batch size. From an archive it is an `fx.GraphModule` of the
    layers in `graphs/layers.py` and the operations in `graphs/graph_operations.py`, with the names of the
    archive's layers where these are free. Raises TrainableError, with the operation that resists.
    """
    if isinstance(network, EagerNetwork):
        module = _eager_module(network, input_size)
        _check_logits(module, network, input_size)
    elif isinstance(network, ExportedNetwork | ScriptNetwork):
        module = _graph_module(network, input_size)
        _check_logits(module, network, input_size)
        _check_gradients(module, noise(module, _TRIAL_BATCHES[0], input_size))
    else:
        raise TrainableError(f"a {type(network).__name__} has no weights that can be trained")
    return module.train()


def _eager_module(network: EagerNetwork, input_size: tuple[int, int, int]) -> nn.Module:
    try:
        module = copy.deepcopy(network.module)
    except Exception as error:  # a module can keep anything among its attributes, such as tensors of a forward
        raise TrainableError(f"it cannot be copied ({first_line(error)})") from error
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    with evaluating(module):
        returned = module(noise(module, 2, input_size))
    if isinstance(returned, Tensor) and task_of(returned, 2) is not None:
        return module
    return PickedLogits(module, network._output, network._num_classes)


def _graph_module(network: Network, input_size: tuple[int, int, int]) -> fx.GraphModule:
    batch = network.batch_size or _UNMISTAKABLE_BATCH
    traced = _trace(network, batch, input_size)
    _simplify(traced.graph)
    layers = LayerGraph(traced, network)
    layers.replace_layers()
    free_sizes(layers.graph, batch, unmistakable=network.batch_size is None)
    remove_unused(layers.graph)
    layers.keep_tensors()
    _follow_device(layers.graph)
    for node in layers.graph.nodes:
        node.meta = {}
        if node.op in ("call_function", "call_method") and operation_name(node.target) not in ALLOWED:
            raise TrainableError(f"the operation {node.target} has no trainable form")
    module = fx.GraphModule(layers.root, layers.graph)
    module.meta["input_size"] = tuple(input_size)
    return module


def _trace(network: Network, batch: int, input_size: tuple[int, int, int]) -> fx.GraphModule:
    device = noise(network, 1, input_size).device
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            images = torch.empty(batch, *input_size, device=device)
        return trace_operations(network, images)
    except Exception as error:  # an archive from outside can fail in any way
        by_value = "guard_" in str(error) or "data-dependent" in str(error)
        reason = "a size or branch depends on the value of a tensor (aten::Int)" if by_value else error_line(error)
        raise TrainableError(f"its operations cannot be traced: {reason}") from error


def _simplify(graph: fx.Graph) -> None:
    """Remove operations without effect, give the others their usual names, and compute nothing in place.

    An operation stays in place where something else sees the changed tensor.
    """
    for node in list(graph.nodes):
        node.target = usual_form(node.target)
        if node.target in _NO_OPERATIONS:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif (node.target in _CHECKS or _sets_gradient_mode(node)) and not node.users:
            graph.erase_node(node)
    places = {node: place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        out_of_place = _out_of_place(node.target)
        if out_of_place is not None and _is_only_reference(node.args[0], node, places):
            node.target = out_of_place


def _sets_gradient_mode(node: fx.Node) -> bool:
    """Return whether the node is a `torch.no_grad` or the like, which a trace contains as a call of a private name."""
    return getattr(node.target, "__name__", "") == "_set_grad_enabled"


def _out_of_place(target: Any) -> Any:
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    name = target._schema.name.partition("::")[2]
    packet = getattr(aten, name[:-1], None) if name.endswith("_") and target.namespace == "aten" else None
    return getattr(packet, target._overloadname, None)


def _is_only_reference(changed: Any, node: fx.Node, places: dict[fx.Node, int]) -> bool:
    """Return whether no view of the changed tensor exists, and all its other uses come before the change."""
    related = [changed, *changed.users]
    return changed.op == "call_function" and not any(
        (one is not changed and places[one] > places[node]) or _is_view(one) for one in related
    )


def _is_view(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return True
    # `reshape` and its like sometimes return views, which their schemas do not say.
    sometimes = target._schema.name in ("aten::reshape", "aten::flatten", "aten::contiguous", "aten::to")
    return sometimes or any(
        result.alias_info is not None and not result.alias_info.is_write for result in target._schema.returns
    )


def _follow_device(graph: fx.Graph) -> None:
    """Make new tensors on the device of the images, wherever they were recorded."""
    device = device_of_images(graph)
    for node in graph.nodes:
        if makes_tensor(node.target):
            node.kwargs = {**node.kwargs, "device": device}
    if not device.users:
        graph.erase_node(device)


def _check_logits(module: nn.Module, network: Network, input_size: tuple[int, int, int]) -> None:
    for batch in _TRIAL_BATCHES:
        images = noise(network, batch, input_size)
        with evaluating(module, network):
            expected = network(images.clone())  # a network can change its input
            try:
                logits = module(images.clone())
            except Exception as error:  # a recorded size that was not recognised can fail in any operation
                raise TrainableError(f"it does not run with {batch} images ({error_line(error)})") from error
        if logits.shape != expected.shape or not largest_difference(logits, expected) <= _TOLERANCE:
            raise TrainableError(f"the network of layers made from it computes other logits for {batch} images")


def _check_gradients(module: nn.Module, images: Tensor) -> None:
    names = dict(module.named_parameters())
    module.eval()
    try:
        logits = module(images)
        gradients = torch.autograd.grad(logits.sum(), list(names.values()), allow_unused=True)
    except Exception as error:  # as above
        raise TrainableError(f"its gradient cannot be computed ({error_line(error)})") from error
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is None:
            raise TrainableError(f"no gradient reaches its parameter {name}")
