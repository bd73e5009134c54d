"""Where a network keeps its running statistics, so that they are read live: after a move or an update as well."""

from collections.abc import Sequence

from torch import Tensor, nn

from dfkd_cli.networks.base import NormStatistics


class NormLayers:
    """The running means and variances of a network's BatchNorm calls, found again by owner and name."""

    def __init__(self, network: nn.Module, calls: Sequence[tuple[Tensor, Tensor]]):
        """`calls` holds each call's mean and variance; those no module owns become buffers of `network`."""
        owners = {_identity(tensor): (owner, name) for owner in network.modules() for name, tensor in _own(owner)}
        self._places: list[tuple[tuple[nn.Module, str], ...]] = []
        for call in calls:
            for tensor in call:
                if _identity(tensor) not in owners:
                    name = f"norm_statistic_{len(owners)}"
                    network.register_buffer(name, tensor.detach().clone(), persistent=False)
                    owners[_identity(tensor)] = (network, name)
            self._places.append(tuple(owners[_identity(tensor)] for tensor in call))

    def read(self) -> tuple[NormStatistics, ...]:
        """The statistics as they are now, in the order of the calls."""
        return tuple(NormStatistics(*(getattr(owner, name) for owner, name in places)) for places in self._places)


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _identity(tensor: Tensor) -> tuple[int, tuple[int, ...]]:
    # TorchScript wraps the same storage in a new Python object at every access: `is` would not do.
    return tensor.data_ptr(), tuple(tensor.shape)
