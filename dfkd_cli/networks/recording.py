"""What a TorchScript archive computes, written down as plain operations: torch.compile cannot see into TorchScript."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from dfkd_cli.networks.base import Outputs

_TOLERANCE = 1e-3  # of the largest logit: the same operations in the same order


class Recording(NamedTuple):
    """A network at one batch size, on one device."""

    logits: Callable[[Tensor], Tensor]
    outputs: Callable[[Tensor], Outputs]


@torch.no_grad()
def record(logits: Callable[[Tensor], Tensor], outputs: Callable[[Tensor], Outputs], images: Tensor) -> Recording:
    """Both functions for batches shaped like `images`.

    Raises ValueError when the recording computes something else: the network decides by its values, or draws numbers.
    """
    recording = Recording(_traced(logits, images), _traced(outputs, images))
    others = images.flip(0, 2)
    wanted = logits(others)
    if not torch.allclose(recording.logits(others), wanted, rtol=0.0, atol=_TOLERANCE * float(wanted.abs().max())):
        raise ValueError("its recording gives other logits")
    return recording


def _traced(function: Callable[[Tensor], Any], images: Tensor) -> Callable[[Tensor], Any]:
    # Above autocast and autograd: a run decides about precision and gradients each time. Without computing: a batch of
    # large images takes long, and what all layers receive takes much memory.
    trace = make_fx(
        lambda inputs: function(inputs),  # make_fx counts a method's self
        tracing_mode="fake",
        pre_dispatch=True,
        _allow_non_fake_inputs=True,
    )
    return trace(images)
