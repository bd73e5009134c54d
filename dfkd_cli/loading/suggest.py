"""Finds known architectures close to a state dict or a name, for error messages."""

import difflib
import time
from collections.abc import Iterator, Mapping

import timm
import torch
from torch import Tensor

from dfkd_cli.loading.failures import quiet
from dfkd_cli.models import REFERENCE_ARCHS

_SECONDS = 5.0  # longest search
_COMMON = (
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "vgg11_bn",
    "vgg16_bn",
    "densenet121",
    "regnety_004",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
)


def closest_architectures(weights: Mapping[str, Tensor], arch: str | None, count: int = 3) -> list[str]:
    """Return up to `count` names that share parameters (name and shape) with `weights`, best first.

    The candidates are the reference networks, timm names similar to `arch`, and a few common networks.
    """
    entries = {_entry(key, tensor) for key, tensor in weights.items() if tensor.ndim}
    scores: dict[str, float] = {}
    deadline = time.monotonic() + _SECONDS
    for name in _candidates(arch):
        if time.monotonic() > deadline:
            break
        candidate = _entries_of(name)
        if candidate & entries:
            scores[name] = len(candidate & entries) / len(candidate | entries)
    return sorted(scores, key=lambda name: -scores[name])[:count]


def similar_names(arch: str, count: int = 3) -> list[str]:
    """Return known architecture names with a spelling close to `arch`."""
    return difflib.get_close_matches(arch, timm.list_models(), n=count, cutoff=0.6)


def _candidates(arch: str | None) -> Iterator[str]:
    similar = similar_names(arch, 8) if arch else []
    yield from dict.fromkeys([*REFERENCE_ARCHS, *similar, *_COMMON])


def _entries_of(name: str) -> set[tuple[str, tuple[int, ...]]]:
    """Return names and shapes of an architecture's weights; empty when it cannot be built on the meta device."""
    try:
        with quiet("timm"), torch.device("meta"):
            module = timm.create_model(name)
    # Constructors fail on the meta device with errors of many types; such an architecture is not suggested.
    except Exception:
        return set()
    return {_entry(key, tensor) for key, tensor in module.state_dict().items() if tensor.ndim}


def _entry(key: str, tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    return key, tuple(tensor.shape)
