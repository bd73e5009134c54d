"""Finds known architectures close to a state dict, for error messages."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import timm
import torch
from torch import Tensor

from dfkd_cli.loading.catalogue import similar_names
from dfkd_cli.loading.failures import quiet
from dfkd_cli.loading.torchvision_zoo import PREFIX, families, plain_torchvision, present_names
from dfkd_cli.models import REFERENCE_ARCHS

_SECONDS, _TORCHVISION_SECONDS = 5.0, 10.0  # longest search among timm's networks, and among torchvision's
_CLASSES = 1000
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
_HEAD = 2  # tensors that depend on the number of classes
Entries = set[tuple[str, tuple[int, ...]]]


class Match(NamedTuple):
    """An architecture that shares parameters with weights."""

    score: float  # parameters that both have, of those that any has
    name: str
    whole: bool  # whether the weights have all parameters but those of the head


def closest_architectures(weights: Mapping[str, Tensor], arch: str | None, count: int = 3) -> list[Match]:
    """Return up to `count` architectures that share parameters (name and shape) with `weights`, best first.

    The candidates are the reference networks, timm names similar to `arch`, a few common networks, and torchvision's.
    """
    matches, deadline = [], time.monotonic() + _SECONDS
    for name in _candidates(arch):
        if time.monotonic() > deadline:
            break
        matches.append(_match(name, _timm_entries(name), weights))
    matches += _torchvision_matches(present_names(dict(weights)))
    return sorted((match for match in matches if match.score), key=lambda match: -match.score)[:count]


def in_words(matches: Sequence[Match]) -> str:
    """Return the names as part of a message, with the flag for a layout that is torchvision's alone."""
    best = matches[0]
    if best.name.startswith(PREFIX) and best.whole:
        return f"the weights have the layout of torchvision's {best.name.removeprefix(PREFIX)}: --arch {best.name}"
    return f"closest known: {', '.join(match.name for match in matches)}"


def _match(name: str, entries: Entries, weights: Mapping[str, Tensor]) -> Match:
    shapes = dict(entries)
    shared: Counter[str] = Counter()
    for key, tensor in weights.items():
        parts = key.split(".")
        for start in range(len(parts)):
            if shapes.get(".".join(parts[start:])) == tuple(tensor.shape):
                shared["".join(f"{part}." for part in parts[:start])] += 1
    scores: dict[str, float] = {}
    for prefix, common in shared.items():
        present = sum(bool(tensor.ndim) for key, tensor in weights.items() if key.startswith(prefix))
        scores[prefix] = common / (len(entries) + present - common)
    prefix = max(scores, key=lambda prefix: scores[prefix], default="")
    return Match(scores.get(prefix, 0.0), name, shared[prefix] >= len(entries) - _HEAD > 0)


def _torchvision_matches(weights: dict[str, Tensor]) -> list[Match]:
    """Return the matches of the best family of torchvision's networks."""
    deadline, best, members = time.monotonic() + _TORCHVISION_SECONDS, 0, []
    known = {key[start:] for key in weights for start in _starts(key)}
    for family in families(known):
        common = len(known & {key for key, _ in _torchvision_entries(family[0])})
        if common > best:
            best, members = common, family
    matches = []
    for name in members:
        if time.monotonic() > deadline:
            break
        matches.append(_match(PREFIX + name, _torchvision_entries(name), weights))
        if matches[-1].whole:
            break
    return matches


def _starts(key: str) -> Iterator[int]:
    """Return where the parts of a dotted name begin."""
    yield 0
    yield from (index + 1 for index, sign in enumerate(key) if sign == ".")


def _candidates(arch: str | None) -> Iterator[str]:
    similar = similar_names(arch, 8) if arch else []
    yield from dict.fromkeys([*REFERENCE_ARCHS, *similar, *_COMMON])


def _timm_entries(name: str) -> Entries:
    """Return names and shapes of an architecture's weights; empty when it cannot be built on the meta device."""
    try:
        with quiet("timm"), torch.device("meta"):
            module = timm.create_model(name)
    # Constructors fail on the meta device with errors of many types; such an architecture is not suggested.
    except Exception:
        return set()
    return _entries(module.state_dict())


def _torchvision_entries(name: str) -> Entries:
    return _entries(plain_torchvision(name, _CLASSES).state_dict())


def _entries(weights: Mapping[str, Tensor]) -> Entries:
    return {(key, tuple(tensor.shape)) for key, tensor in weights.items() if tensor.ndim}
