"""What a forward costs whatever the machine: multiplications, and the memory of the tensors alive at once."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dfkd_cli.networks.classifier import Classifier


def count_macs(run: Callable[[Tensor], Any], images: Tensor) -> int:
    """Multiply-accumulate operations of convolutions and matrix products in one call, all images together."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(images)
    return counter.get_total_flops() // 2


def macs_per_image(classifier: Classifier) -> int:
    """Multiply-accumulate operations of one image."""
    # An archive recorded at one batch size fills every batch up to it.
    batch = getattr(classifier.network, "batch_size", None) or 1
    return count_macs(classifier, torch.zeros(batch, *classifier.spec.size, device=classifier.mean.device)) // batch


def activation_bytes(run: Callable[[Tensor], Any], images: Tensor) -> int:
    """The most memory that the tensors made in one call hold at once: no weights, no scratch space of kernels."""
    with torch.no_grad(), _LiveTensors() as live:
        run(images)
    return live.most


def weight_bytes(module: nn.Module) -> int:
    """Memory of the module's parameters and buffers, which is also that of a file of them but for its header."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())


class _LiveTensors(TorchDispatchMode):
    """Sums the storage of every result of an operation for as long as it lives."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = {_address(value) for value in [*args, *kwargs.values()] if isinstance(value, Tensor)}
        result = func(*args, **kwargs)
        for tensor in result if isinstance(result, tuple | list) else (result,):
            # A view, or an argument changed in place, holds no memory of its own.
            if isinstance(tensor, Tensor) and _address(tensor) not in given:
                self._add(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.now += size
        weakref.finalize(storage, self._subtract, size)

    def _subtract(self, size: int) -> None:
        self.now -= size


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
