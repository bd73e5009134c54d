"""Cost of a forward that does not depend on the machine: multiplications and peak memory of tensors."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dfkd_cli.networks.classifier import Classifier


def count_macs(run: Callable[[Tensor], Any], images: Tensor) -> int:
    """Return the multiply-accumulate operations of all convolutions and matrix products in one call of `run`."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(images)
    return counter.get_total_flops() // 2


def macs_per_image(classifier: Classifier) -> int:
    """Return the multiply-accumulate operations per image."""
    # A network with a fixed batch size pads every batch to it. Without running statistics BatchNorm needs two images.
    batch = classifier.network.batch_size or 2
    return count_macs(classifier, torch.zeros(batch, *classifier.spec.size, device=classifier.mean.device)) // batch


def activation_bytes(run: Callable[[Tensor], Any], images: Tensor) -> int:
    """Return the peak memory, in bytes, of the tensors that one call of `run` creates.

    Weights and workspace of kernels are not included.
    """
    with torch.no_grad(), _LiveTensors() as live:
        run(images)
    return live.peak


def weight_bytes(module: nn.Module) -> int:
    """Return the size, in bytes, of the module's parameters and buffers; a weights file adds only its header."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())


class _LiveTensors(TorchDispatchMode):
    """Sums the storage of all tensors that operations have returned and that still exist."""

    def __init__(self) -> None:
        super().__init__()
        self.current = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = {_address(value) for value in [*args, *kwargs.values()] if isinstance(value, Tensor)}
        result = func(*args, **kwargs)
        for tensor in result if isinstance(result, tuple | list) else (result,):
            # A view, or an argument changed in place, has no memory of its own.
            if isinstance(tensor, Tensor) and _address(tensor) not in given:
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.current)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.current += size
        weakref.finalize(storage, self._subtract, size)

    def _subtract(self, size: int) -> None:
        self.current -= size


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
