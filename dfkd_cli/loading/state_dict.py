"""Finds the tensors inside checkpoints of training scripts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.errors import TeacherError

_DEEPEST = 8
_MOST_CONTAINERS = 200_000  # the state of an optimizer has one for each parameter
WRAPPING = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


@dataclass
class Checkpoint:
    """Everything in a file: the tensors of one network or of several, and the facts that stand beside them.

    Names are dotted: a tensor `conv1.weight` in the dict `state_dict` is `state_dict.conv1.weight`. They are without
    the parts that torch.compile and FSDP add.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)  # name of a tensor -> name of the dict that holds it
    modules: dict[str, nn.Module] = field(default_factory=dict)  # pickled ones
    stated: dict[str, tuple[str, Any]] = field(default_factory=dict)  # name of a dict -> its `arch` and `args`


def unwrap(content: Any, path: Path) -> Checkpoint:
    """Return what the result of torch.load contains; raise TeacherError when there is no tensor and no module."""
    checkpoint = Checkpoint()
    containers = _collect(content, (), checkpoint, [])
    if containers > _MOST_CONTAINERS:
        raise TeacherError(f"{path} contains more than {_MOST_CONTAINERS:,} dicts and lists; save model.state_dict()")
    if not checkpoint.tensors and not checkpoint.modules:
        if not isinstance(content, Mapping):
            raise TeacherError(f"{path} contains {_article(content)}, not a state dict; save model.state_dict()")
        raise TeacherError(f"{path} contains no tensors, only the keys {_first_keys(content)}; save model.state_dict()")
    return checkpoint


def _collect(content: Any, place: tuple[str, ...], found: Checkpoint, above: list[int]) -> int:
    """Add the tensors in a container to `found`; return the number of containers, at most one above the limit."""
    if not isinstance(content, Mapping | list | tuple) or id(content) in above or len(above) >= _DEEPEST:
        return 0
    items: Iterable[tuple[Any, Any]] = content.items() if isinstance(content, Mapping) else enumerate(content)
    containers, before, home = 1, len(found.tensors) + len(found.modules), ".".join(place)
    for key, value in items:
        parts = (*place, *(part for part in str(key).split(".") if part not in WRAPPING))
        if isinstance(value, Tensor):
            name = ".".join(parts)
            found.tensors[name], found.homes[name] = value.detach(), home
        elif isinstance(value, nn.Module):
            found.modules[".".join(parts)] = value
        elif containers <= _MOST_CONTAINERS:
            containers += _collect(value, parts, found, [*above, id(content)])
    holds_weights = len(found.tensors) + len(found.modules) > before
    if holds_weights and isinstance(content, Mapping) and isinstance(content.get("arch"), str):
        found.stated[home] = (content["arch"], content.get("args"))
    return containers


def check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise TeacherError naming the first tensor with NaN or infinity, except masks of 0 and -infinity."""
    for key, tensor in weights.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and not _all_finite(tensor):
            raise TeacherError(f"{path} is damaged: {key!r} has NaN or infinite values; copy or download it again")


def _all_finite(tensor: Tensor) -> bool:
    # float8 has no isfinite kernel.
    wide = tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
    return bool(torch.isfinite(wide).all()) or _is_mask(wide)


def _is_mask(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(((tensor == 0.0) | torch.isneginf(tensor)).all())


def _article(content: Any) -> str:
    name = type(content).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def _first_keys(content: Mapping[Any, Any]) -> str:
    return ", ".join(repr(key)[:40] for key in list(content)[:5]) or "none"
