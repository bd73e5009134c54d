"""Random images to try a network on."""

import torch
from torch import Tensor, nn


def noise(network: nn.Module, batch: int, input_size: tuple[int, int, int]) -> Tensor:
    """Normal noise [B, C, H, W] where the network is; the same at every call, without touching the global stream."""
    rng = torch.Generator().manual_seed(0)
    tensors = [*network.parameters(), *network.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    return torch.randn(batch, *input_size, generator=rng).to(device)
