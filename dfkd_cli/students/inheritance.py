"""Initial weights of the student: copies of the teacher's layers of the same names and shapes."""

from collections import defaultdict

import torch
from torch import Tensor, nn

Pairs = dict[str, tuple[Tensor, Tensor]]  # student's name -> (student's tensor, teacher's tensor)


@torch.no_grad()
def inherit_layers(student: nn.Module, teacher: nn.Module) -> int:
    """Copy the teacher's layers to the student's layers of the same names; return the number of copied parameters.

    A layer is a module that holds tensors itself. It is copied as a whole, BatchNorm statistics included, and only if
    all its tensors have the same shapes. The teacher's names can have a common prefix, as in a wrapper that normalises
    the images: the prefix is used with which most parameters fit.
    """
    offered = {name: value for name, value in teacher.state_dict().items() if isinstance(value, Tensor)}
    layers = _layers(student)
    learned = {name for name, _ in student.named_parameters()}
    found = [_fitting(layers, offered, prefix) for prefix in sorted(_prefixes(student, offered))]
    pairs = max(found, key=lambda pairs: _size(pairs, learned), default={})
    for own, value in pairs.values():
        own.copy_(value)
    return _size(pairs, learned)


def _layers(student: nn.Module) -> list[dict[str, Tensor]]:
    """Return one dictionary per layer of the student, from names to tensors."""
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in student.state_dict().items():
        layers[name.rpartition(".")[0]][name] = value
    return list(layers.values())


def _prefixes(student: nn.Module, offered: dict[str, Tensor]) -> set[str]:
    """Return the prefixes that turn a name of the student into a name of the teacher."""
    own = student.state_dict().keys()
    cuts = ((name[:start], name[start:]) for name in offered for start in _starts(name))
    return {prefix for prefix, rest in cuts if rest in own}


def _starts(name: str) -> list[int]:
    return [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]


def _fitting(layers: list[dict[str, Tensor]], offered: dict[str, Tensor], prefix: str) -> Pairs:
    """Return the tensors of the layers that fit as a whole with this prefix."""
    pairs: Pairs = {}
    for layer in layers:
        here = {name: (own, offered[prefix + name]) for name, own in layer.items() if prefix + name in offered}
        if len(here) == len(layer) and all(_fit(own, value) for own, value in here.values()):
            pairs.update(here)
    return pairs


def _fit(own: Tensor, value: Tensor) -> bool:
    return own.shape == value.shape and own.is_floating_point() == value.is_floating_point()


def _size(pairs: Pairs, learned: set[str]) -> int:
    return sum(own.numel() for name, (own, _) in pairs.items() if name in learned)
