"""Which channels of a network belong together, found by Torch-Pruning's DepGraph (arXiv:2301.12900)."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE

from dfkd_cli.narrowing.groups import CHANNELWISE, NARROWED, ChannelGroup, Member, Structure
from dfkd_cli.narrowing.heads import head_groups
from dfkd_cli.narrowing.ties import tied
from dfkd_cli.networks.layer_sizes import TRANSPOSED, is_depthwise, is_grouped
from dfkd_cli.networks.modes import evaluating

FEWEST = 8  # channels that processors compute together: fewer gain no speed
SLICES = ("_SliceOp", "_UnbindOp", "_SplitOp")  # of Torch-Pruning
_SLICED, _SHUFFLED = "the network slices these channels", "the network shuffles these channels"


def find_structure(module: nn.Module, images: Tensor) -> Structure:
    """Return the channel groups of a network that maps normalised images [B, C, H, W] to logits.

    Groups without a consumer are the outputs of the network and left out.
    """
    names = {layer: name for name, layer in module.named_modules()}
    calls, pixels, logits = _trial(module, images, names)
    graph = _dependency_graph(module, images)
    graph.visit_last(lambda layer: _channels(layer, "out") == 1)
    heads = list(head_groups(module))
    by_head = {group.root for group in heads}
    groups: list[ChannelGroup] = []
    fixed = []
    for found in graph.get_all_groups(root_module_types=list(NARROWED)):
        root = names[found[0].dep.target.module]
        reason = _resists(graph, found)
        members = tuple(_members(graph, found, names))
        # What reads the channels behind a slice or shuffle is not in the group.
        read = reason in (_SLICED, _SHUFFLED) or any(member.side == "in" for member in members)
        if root in by_head or not read:
            continue
        if reason is not None:
            fixed.append(f"{root}: {reason}")
            continue
        groups.append(ChannelGroup(root, len(found[0].idxs), members, inner=False))
    layers = dict(module.named_modules())
    groups, whole = tied(groups, layers)
    groups = [
        replace(group, inner=_is_inner(group.members, layers, pixels), scarce=_is_scarce(group, layers, logits))
        for group in groups
    ]
    return Structure((*groups, *heads), (*fixed, *whole), calls)


def _dependency_graph(module: nn.Module, images: Tensor) -> "_Graph":
    wanted = [parameter.requires_grad for parameter in module.parameters()]
    module.requires_grad_(True)  # the graph is read off the gradient's graph
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # on parameters outside of layers, which `_resists` reports
            graph = _Graph()
            graph.build_dependency(module, example_inputs=images)
            return graph
    finally:
        for parameter, value in zip(module.parameters(), wanted, strict=True):
            parameter.requires_grad_(value)


class _Graph(torch_pruning.DependencyGraph):
    """A graph that ends where channels cannot be followed, before numbers of channels are passed on.

    One-dimensional convolutions from one channel to one stand apart. What reaches a slice or a channel shuffle goes no
    further: the group resists anyway, and around slices that are joined again (RexNet) the search would go in circles.
    """

    def visit_last(self, chosen: Callable[[nn.Module], bool]) -> None:
        """Begin no group at the chosen layers that another layer's group contains."""
        order = sorted(self.module2node, key=lambda module: isinstance(module, nn.Module) and chosen(module))
        self.module2node = {module: self.module2node[module] for module in order}

    def _build_dependency(self, module2node: dict[Any, torch_pruning.dependency.Node]) -> None:
        super()._build_dependency(module2node)
        self.shuffles = {one for node in module2node.values() if _is_shuffle(node) for one in _before(node)}
        for node in self.shuffles:
            node.type = OPTYPE.ELEMENTWISE  # of a reshape the numbers of channels would be followed
            node.dependencies = []
        for layer, node in module2node.items():
            if isinstance(layer, nn.Conv1d) and layer.in_channels == layer.out_channels == 1:
                _separate(_around(node))
            elif type(layer).__name__ in SLICES:
                node.dependencies = []


def _is_shuffle(node: torch_pruning.dependency.Node) -> bool:
    """Return whether a node merges maps [B, G, C / G, H, W], the end of a channel shuffle (arXiv:1707.01083)."""
    return node.type == OPTYPE.RESHAPE and len(getattr(node.grad_fn, "_saved_self_sym_sizes", ())) == 5


def _before(node: torch_pruning.dependency.Node) -> list[torch_pruning.dependency.Node]:
    """Return a node and the operations before it up to one that is no plain one."""
    found = [node]
    while len(found[-1].inputs) == 1 and _is_plain(found[-1].inputs[0]):
        found.append(found[-1].inputs[0])
    return found


def _around(node: torch_pruning.dependency.Node) -> list[torch_pruning.dependency.Node]:
    """Return the node of a convolution from one channel to one, and the operations around it up to a branch or a layer.

    In efficient channel attention (arXiv:1910.03151) the C channels of a network are the positions of such a
    convolution. Followed through it, each of them depends on all C, again and again. It has no channel that can go.
    """
    found = [node]
    for reached in found:  # which grows
        found += [one for one in (*reached.inputs, *reached.outputs) if one not in found and _is_plain(one)]
    return found


def _is_plain(node: torch_pruning.dependency.Node) -> bool:
    """Return whether a node is an operation without parameters that has one input and one output."""
    return len(node.inputs) == len(node.outputs) == 1 and not isinstance(node.module, (nn.Parameter, *CHANNELWISE))


def _separate(nodes: list[torch_pruning.dependency.Node]) -> None:
    """Remove all connections of these nodes from a graph."""
    for node in nodes:
        for other in (*node.inputs, *node.outputs):
            other.inputs = [one for one in other.inputs if one is not node]
            other.outputs = [one for one in other.outputs if one is not node]
            other.dependencies = [one for one in other.dependencies if one.target is not node]
        node.inputs, node.outputs, node.dependencies = [], [], []


def _trial(
    module: nn.Module, images: Tensor, names: dict[nn.Module, str]
) -> tuple[tuple[str, ...], dict[str, int], Tensor]:
    """Return the layers in the order of their first call, the pixels of their outputs, and the logits."""
    pixels: dict[str, int] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(output, Tensor):
            pixels.setdefault(names[layer], output[0].numel() // max(output.shape[1], 1) if output.dim() > 2 else 1)

    hooks = [layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, CHANNELWISE)]
    try:
        with evaluating(module):
            logits = module(images)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(pixels), pixels, logits


def _resists(graph: "_Graph", found: torch_pruning.dependency.Group) -> str | None:
    """Return why channels of a group cannot be removed one by one, or None."""
    for item in found:
        if item.dep.target in graph.shuffles:
            return _SHUFFLED
        target = item.dep.target.module
        # Torch-Pruning takes operations that it does not know, such as GLU, for ones that keep the channels.
        if isinstance(target, CHANNELWISE) and 1 < _channels(target, _side(graph, item)) <= max(item.idxs):
            return "an operation changes the number of these channels"
        kind = type(target).__name__
        if isinstance(target, nn.Parameter):
            return "a parameter outside of layers has these channels"
        if isinstance(target, nn.Module):
            known = isinstance(target, CHANNELWISE) or not list(target.parameters(recurse=False))
            if isinstance(target, TRANSPOSED) and target.groups > 1:
                return "a transposed convolution with groups has these channels"
            if kind in SLICES:
                return _SLICED
            if not known:
                return f"a {kind} mixes these channels"
    return None


def _members(
    graph: torch_pruning.DependencyGraph, found: torch_pruning.dependency.Group, names: dict[nn.Module, str]
) -> Iterator[Member]:
    for item in found:
        target = item.dep.target.module
        side = _side(graph, item)
        # One channel that meets many, as in a gate of one map, is shared by them and stays.
        shared = isinstance(target, NARROWED) and len(found[0].idxs) > 1 and _channels(target, side) == 1
        if isinstance(target, CHANNELWISE) and target in names and not shared:
            yield Member(names[target], side, torch.tensor(item.idxs), torch.tensor(item.root_idxs))


def _side(graph: torch_pruning.DependencyGraph, item: Any) -> Literal["in", "out"]:
    return "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"


def _channels(layer: Any, side: Literal["in", "out"]) -> int:
    """Return how many channels a layer reads or writes; 0 for a layer that leaves them as they are."""
    sizes = {"out": ("out_features", "out_channels"), "in": ("in_features", "in_channels")}[side]
    names = (*sizes, "num_features", "num_channels", "num_parameters")  # of matrices, norms and PReLU
    return next((getattr(layer, name) for name in names if isinstance(layer, CHANNELWISE) and hasattr(layer, name)), 0)


def _is_inner(members: tuple[Member, ...], layers: dict[str, nn.Module], pixels: dict[str, int]) -> bool:
    """Return whether one layer alone writes the channels.

    Convolutions that read the channels in groups and write them again do not count, nor do gates of one pixel.
    """
    read = {member.layer for member in members if member.side == "in"}
    writers = [
        member.layer
        for member in members
        if member.side == "out"
        and isinstance(layer := layers[member.layer], NARROWED)
        and not (is_depthwise(layer) or (is_grouped(layer) and member.layer in read))
    ]
    of_maps = [name for name in writers if pixels.get(name, 1) > 1]
    return len(of_maps or writers) <= 1


def _is_scarce(group: ChannelGroup, layers: dict[str, nn.Module], logits: Tensor) -> bool:
    """Return whether no layer writes more than a few of the channels, or, for segmentation, there is one per class.

    Those are scores of the classes at a smaller resolution, as in the decoders of ESPNet or FCN.
    """
    scores = logits.ndim == 4 and group.size == logits.shape[1]
    written = [len(member.index) for member in group.producers() if isinstance(layers[member.layer], NARROWED)]
    return scores or max(written, default=FEWEST) < FEWEST
