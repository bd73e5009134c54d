"""Random inputs for trial forwards."""

import torch
from torch import Tensor, nn


def noise(network: nn.Module, batch: int, input_size: tuple[int, ...]) -> Tensor:
    """Return normal noise [B, *input_size], usually [B, C, H, W], on the network's device.

    The values are the same at every call, and torch's global random stream does not change.
    """
    rng = torch.Generator().manual_seed(0)
    tensors = [*network.parameters(), *network.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    return torch.randn(batch, *input_size, generator=rng).to(device)
