"""What a TorchScript archive computes, written down as plain operations: torch.compile cannot see into TorchScript."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from dfkd_cli.networks.base import NormStatistics, Outputs

_TOLERANCE = 1e-3  # of the largest logit: the same operations in the same order


class Recording(NamedTuple):
    """A network at one batch size, on one device."""

    shape: torch.Size  # of the images [B, C, H, W]
    logits: Callable[[Tensor], Tensor]
    outputs: Callable[[Tensor], Outputs]
    norm_statistics: tuple[NormStatistics, ...]


@torch.no_grad()
def record(
    logits: Callable[[Tensor], Tensor],
    outputs: Callable[[Tensor], Outputs],
    norm_statistics: tuple[NormStatistics, ...],
    images: Tensor,
) -> Recording:
    """Both functions for batches shaped like `images`, beside the statistics: compilers cannot read modules' either.

    Raises ValueError when the recording computes something else: the network decides by its values, or draws numbers.
    """
    # Above autocast and autograd: a run decides about precision and gradients each time.
    recording = Recording(
        images.shape,
        make_fx(lambda inputs: logits(inputs), pre_dispatch=True)(images),  # make_fx counts a method's self
        make_fx(lambda inputs: outputs(inputs), pre_dispatch=True)(images),
        norm_statistics,
    )
    others = images.flip(0, 2)
    wanted = logits(others)
    for found in (recording.logits(others), recording.outputs(others).logits):
        if not torch.allclose(found, wanted, rtol=0.0, atol=_TOLERANCE * float(wanted.abs().max())):
            raise ValueError("its recording gives other logits")
    return recording
