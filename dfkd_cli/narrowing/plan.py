"""What is removed from a teacher to make a student of a share of its size, found and proven before any training."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfkd_cli.errors import UsageError, first_line
from dfkd_cli.narrowing.blocks import SharedInput, shared_inputs
from dfkd_cli.narrowing.config import NarrowingConfig, Order
from dfkd_cli.narrowing.dependencies import find_structure
from dfkd_cli.narrowing.gates import Gates
from dfkd_cli.narrowing.groups import Structure
from dfkd_cli.narrowing.layers import Gone, narrowed, removed_channels
from dfkd_cli.narrowing.share import Removal, choose_channels, count_parameters
from dfkd_cli.networks.layer_sizes import BY_CHANNEL, fit_layers
from dfkd_cli.networks.modes import evaluating

TOLERANCE = 1e-4  # of the largest logit; single precision with other orders of summation stays below 1e-6
_OTHERWISE = "the name of an architecture, such as --student cifar_resnet8"


@dataclass(frozen=True)
class NarrowingPlan:
    """The channels that go, in their order, and what follows from them."""

    structure: Structure
    removal: Removal
    gone: Gone
    blocks: tuple[SharedInput, ...]  # that the student imitates


def plan_narrowing(module: nn.Module, images: Tensor, share: float, config: NarrowingConfig) -> NarrowingPlan:
    """Return the plan for a network that maps normalised images [B, C, H, W] to logits.

    The plan is proven: the network with the channels switched off and the network without them compute the same.
    Raises UsageError for a share that cannot be reached and for networks that resist.
    """
    structure, removal = _proven(module, images, share, config.order)
    smallest = count_parameters(module, structure, removal) / _size(module)
    if smallest > share:
        reason = f" ({structure.fixed[0]})" if structure.fixed else ""
        raise UsageError(f"--student {share:g}: {_too_small(rounded_up(smallest), reason)}")
    blocks = shared_inputs(module, images, structure, removal)
    return NarrowingPlan(structure, removal, removed_channels(structure, removal), blocks)


def _too_small(smallest: float, reason: str) -> str:
    if smallest < 1.0:
        return f"the smallest possible share of this network is {smallest}{reason}; use that or more, or {_OTHERWISE}"
    return f"no channel of this network can go{reason}; use {_OTHERWISE}"


def smallest_share(module: nn.Module, images: Tensor, order: Order) -> tuple[float, tuple[str, ...]]:
    """Return the smallest share of the parameters that the network can be narrowed to, and what has to stay whole.

    The share is proven as in `plan_narrowing`; 1 says that no channel can go. Raises UsageError for a network
    whose channels cannot be followed.
    """
    structure, removal = _proven(module, images, 0.0, order)
    return count_parameters(module, structure, removal) / _size(module), structure.fixed


def rounded_up(share: float) -> float:
    """Return a share with three decimals that is not smaller."""
    return math.ceil(1000.0 * share) / 1000.0


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _proven(module: nn.Module, images: Tensor, share: float, order: Order) -> tuple[Structure, Removal]:
    """Return the groups of channels that can go, and what goes of them for the share, or all when it is too small.

    Groups without whose channels the network computes something else become groups that stay whole.
    """
    try:
        structure = find_structure(module, images)
    except Exception as error:  # operations of a network from outside can be unknown to Torch-Pruning in any way
        raise UsageError(
            f"this network cannot be narrowed: its channels cannot be followed ({first_line(error)}); use {_OTHERWISE}"
        ) from error
    while True:
        removal = choose_channels(module, structure, share, order)
        # Also with half of the channels: with all of them gone a network can be dead, which would prove nothing.
        faults = _faults(module, images, structure, removal) or _faults(module, images, structure, removal[::2])
        if not faults:
            return structure, removal
        groups = tuple(group for place, group in enumerate(structure.groups) if place not in faults)
        found = [f"{structure.groups[place].root}: {fault}" for place, fault in faults.items()]
        structure = structure._replace(groups=groups, fixed=(*found, *structure.fixed))


def _faults(module: nn.Module, images: Tensor, structure: Structure, removal: Removal) -> dict[int, str]:
    """Return the groups whose channels cannot go, found by halving the removal, each with a reason."""
    fault = _fault(module, images, structure, removal)
    if fault is None:
        return {}
    places = sorted({place for place, _ in removal})
    if len(places) == 1:
        return {places[0]: fault}
    found: dict[int, str] = {}
    for half in (set(places[: len(places) // 2]), set(places[len(places) // 2 :])):
        found |= _faults(module, images, structure, [pair for pair in removal if pair[0] in half])
    return found or dict.fromkeys(places, fault)  # each half can go, but not both


def _fault(module: nn.Module, images: Tensor, structure: Structure, removal: Removal) -> str | None:
    """Return why the narrowed network does not compute what the network with closed gates computes; None if it does."""
    gates = Gates(module, structure, removal, overlap=1.0)
    gates.close()
    try:
        with evaluating(module):
            expected = module(images)
    finally:
        gates.remove()
    small = copy.deepcopy(module)
    try:
        shrink(small, removed_channels(structure, removal))
        with evaluating(small):
            found = small(images)
    except Exception as error:  # a network from outside can depend on its sizes in any way
        return f"the network depends on its sizes ({first_line(error)})"
    if len([*small.parameters()]) != len([*module.parameters()]):
        return "layers that share their weights would lose different channels"
    if found.shape != expected.shape or not torch.allclose(
        found, expected, rtol=0.0, atol=TOLERANCE * float(expected.abs().max())
    ):
        return "without these channels the network computes something else"
    return None


def shrink(module: nn.Module, gone: Gone) -> None:
    """Remove the channels from all layers of a network, in place."""
    values = narrowed(module, module.state_dict(), gone)
    fit_layers(module, values)
    for name, layer in module.named_modules():
        if isinstance(layer, BY_CHANNEL) and not layer.state_dict():  # nothing else has their size
            layer.num_features -= len(gone.get((name, "out"), ()))
    state = module.state_dict()  # with the versions of the layers, which some require
    state.update(values)
    module.load_state_dict(state)
