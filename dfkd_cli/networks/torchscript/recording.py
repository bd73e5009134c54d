"""Traces TorchScript archives to plain operations, because torch.compile cannot trace TorchScript."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from dfkd_cli.networks.base import Outputs

_TOLERANCE = 1e-3  # relative to the largest logit; both run the same operations in the same order


class Recording(NamedTuple):
    """Traced functions of a network for one batch size on one device."""

    logits: Callable[[Tensor], Tensor]
    outputs: Callable[[Tensor], Outputs]


@torch.no_grad()
def record(logits: Callable[[Tensor], Tensor], outputs: Callable[[Tensor], Outputs], images: Tensor) -> Recording:
    """Return traced versions of both functions for batches shaped like `images`.

    Raises ValueError when they compute something else: the network has data-dependent branches or random numbers.
    """
    recording = Recording(trace_operations(logits, images), trace_operations(outputs, images))
    others = images.flip(0, 2)
    expected = logits(others)
    if not torch.allclose(recording.logits(others), expected, rtol=0.0, atol=_TOLERANCE * float(expected.abs().max())):
        raise ValueError("its recording computes other logits")
    return recording


def trace_operations(function: Callable[[Tensor], Any], images: Tensor) -> fx.GraphModule:
    """Return a module of the plain operations that `function` runs for batches shaped like `images`.

    Every node that computes a tensor has a fake tensor of the same shape in `meta["val"]`. `images` can be fake too.
    """
    # Traced above autocast and autograd, so that both can be chosen per call. Traced with fake tensors, because a batch
    # of large images takes long and the inputs of all layers take much memory.
    trace = make_fx(
        lambda inputs: function(inputs),  # make_fx counts the self of a method as an argument
        tracing_mode="fake",
        pre_dispatch=True,
        _allow_non_fake_inputs=True,
    )
    return trace(images)
