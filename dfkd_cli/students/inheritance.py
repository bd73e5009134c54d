"""The student's first weights: those layers of the teacher that it has too."""

from collections import defaultdict

import torch
from torch import Tensor, nn

Pairs = dict[str, tuple[Tensor, Tensor]]  # the student's tensor and the teacher's, by the student's name


@torch.no_grad()
def inherit_layers(student: nn.Module, teacher: nn.Module) -> int:
    """Copies every layer of the teacher that has a namesake of the same shapes in the student, in place.

    Returns how many of the student's parameters came from the teacher. A layer is what holds tensors of its own; it is
    copied whole, with its BatchNorm statistics, or not at all. The teacher's layers may lie deeper than the student's,
    as in a wrapper that normalises: the place from which most parameters fit is taken.
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
    """The student's tensors by name, those of one layer together."""
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in student.state_dict().items():
        layers[name.rpartition(".")[0]][name] = value
    return list(layers.values())


def _prefixes(student: nn.Module, offered: dict[str, Tensor]) -> set[str]:
    """What stands before names of the student in names of the teacher."""
    own = student.state_dict().keys()
    cuts = ((name[:start], name[start:]) for name in offered for start in _starts(name))
    return {prefix for prefix, rest in cuts if rest in own}


def _starts(name: str) -> list[int]:
    return [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]


def _fitting(layers: list[dict[str, Tensor]], offered: dict[str, Tensor], prefix: str) -> Pairs:
    """The tensors of all layers that fit as a whole."""
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
