"""Access to a network's running statistics that stays valid when the network is moved or updated."""

from collections.abc import Sequence

from torch import Tensor, nn

from dfkd_cli.networks.base import NormStatistics


class NormLayers:
    """The running means and variances of a network's BatchNorm calls, stored as owner and attribute name."""

    def __init__(self, network: nn.Module, calls: Sequence[tuple[Tensor, Tensor]]):
        """`calls` holds the mean and the variance of each call; those of no module become buffers of `network`."""
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
        """Return the current statistics in the order of the calls."""
        return tuple(NormStatistics(*(getattr(owner, name) for owner, name in places)) for places in self._places)


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _identity(tensor: Tensor) -> tuple[int, tuple[int, ...]]:
    # TorchScript wraps the same storage in a new Python object at every access, so `is` does not work.
    return tensor.data_ptr(), tuple(tensor.shape)
