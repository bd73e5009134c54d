"""What is removed from a teacher to make a student of a share of its size, found and proven before any training."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfkd_cli.errors import UsageError, first_line
from dfkd_cli.narrowing.blocks import shared_inputs
from dfkd_cli.narrowing.config import NarrowingConfig
from dfkd_cli.narrowing.gates import Gates
from dfkd_cli.narrowing.groups import Structure, find_structure
from dfkd_cli.narrowing.layers import Gone, narrowed, removed_channels
from dfkd_cli.narrowing.share import Removal, choose_channels
from dfkd_cli.networks.layer_sizes import fit_layers
from dfkd_cli.networks.modes import evaluating

TOLERANCE = 1e-3  # of the largest logit; single precision with other orders of summation stays far below


@dataclass(frozen=True)
class NarrowingPlan:
    """The channels that go, in their order, and what follows from them."""

    structure: Structure
    removal: Removal
    gone: Gone
    blocks: tuple[str, ...]  # layers whose inputs the student shares with the teacher


def plan_narrowing(module: nn.Module, images: Tensor, share: float, config: NarrowingConfig) -> NarrowingPlan:
    """Return the plan for a network that maps normalised images [B, C, H, W] to logits.

    The plan is proven: the network with the channels switched off and the network without them compute the same.
    Raises UsageError for a share that cannot be reached and for networks that resist.
    """
    try:
        structure = find_structure(module, images)
    except Exception as error:  # operations of a network from outside can be unknown to Torch-Pruning in any way
        raise UsageError(
            f"--student {share:g}: this network cannot be narrowed: its channels cannot be followed "
            f"({first_line(error)}); use the name of an architecture"
        ) from error
    removal = choose_channels(module, structure, share, config.order)
    plan = NarrowingPlan(
        structure, removal, removed_channels(structure, removal), shared_inputs(module, images, structure, removal)
    )
    if (fault := _fault(module, images, plan)) is not None:
        raise UsageError(
            f"--student {share:g}: this network cannot be narrowed: {fault}; use the name of an architecture"
        )
    return plan


def _fault(module: nn.Module, images: Tensor, plan: NarrowingPlan) -> str | None:
    """Return why the narrowed network does not compute what the network with closed gates computes; None if it does."""
    gates = Gates(module, plan.structure, plan.removal, overlap=1.0)
    gates.close()
    try:
        with evaluating(module):
            expected = module(images)
    finally:
        gates.remove()
    small = copy.deepcopy(module)
    try:
        shrink(small, plan.gone)
        with evaluating(small):
            found = small(images)
    except Exception as error:  # a network from outside can depend on its sizes in any way
        return first_line(error)
    if found.shape != expected.shape or not torch.allclose(
        found, expected, rtol=0.0, atol=TOLERANCE * float(expected.abs().max())
    ):
        return "without these channels it computes something else"
    return None


def shrink(module: nn.Module, gone: Gone) -> None:
    """Remove the channels from all layers of a network, in place."""
    values = narrowed(module, module.state_dict(), gone)
    fit_layers(module, values)
    module.load_state_dict(values)
