"""What a network costs: the size of its file and the multiplications of one image."""

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from dfkd_cli.classifier import Classifier
from dfkd_cli.loading.hub_folder import find_weights


def file_bytes(source: str) -> int | None:
    """Size of the weights' file; None for a name whose weights come from elsewhere."""
    path = Path(source.removeprefix("local-dir:"))
    path = find_weights(path) if path.is_dir() else path
    return path.stat().st_size if path.is_file() else None


def weight_bytes(classifier: Classifier) -> int:
    """Size of all weights and statistics, which is that of a file of them but for its header."""
    return sum(tensor.numel() * tensor.element_size() for tensor in classifier.network.state_dict().values())


def multiplications(classifier: Classifier) -> int:
    """Multiply-accumulate operations of one image in convolutions, linear layers and attention."""
    # An archive recorded at one batch size fills every batch up to it.
    batch = getattr(classifier.network, "batch_size", None) or 1
    images = torch.zeros(batch, *classifier.spec.size, device=classifier.mean.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        classifier(images)
    return counter.get_total_flops() // (2 * batch)  # the counter takes a product and its sum for two
