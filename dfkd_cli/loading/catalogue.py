"""Architectures by name: timm's, dfkd's reference networks, `torchvision/NAME`, and smp's as `smp/NAME/ENCODER`."""

import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import timm
import torch
from torch import Tensor, nn

import dfkd_cli.models  # noqa: F401 - adds the reference networks to timm's registry
from dfkd_cli.errors import UsageError
from dfkd_cli.loading.failures import quiet
from dfkd_cli.loading.smp import create_smp, is_smp
from dfkd_cli.loading.torchvision_zoo import (
    PREFIX,
    DefaultInput,
    create_torchvision,
    default_input,
    plain_torchvision,
    present_names,
    torchvision_names,
)

PROBE_CLASSES = 9_973  # number of classes that no other layer has as its number of outputs
Weights = dict[str, Tensor]


def is_torchvision(arch: str) -> bool:
    """Return whether the name is one of torchvision's networks."""
    return arch.startswith(PREFIX)


def is_known(arch: str) -> bool:
    """Return whether there is an architecture of this name."""
    if is_smp(arch):
        return True  # smp says so when the network is made
    return arch.removeprefix(PREFIX) in torchvision_names() if is_torchvision(arch) else timm.is_model(arch)


def check_known(arch: str) -> None:
    """Raise UsageError with similar names when there is no architecture `arch`."""
    if not is_known(arch):
        similar = _similar(arch)
        hint = f"did you mean {', '.join(similar)}?" if similar else "use a name from timm.list_models()"
        raise UsageError(f"unknown architecture {arch!r}; {hint}")
    check_tag(arch)


def check_tag(name: str) -> None:
    """Raise UsageError when `name` is a timm architecture with a tag after a dot, and timm has no such weights."""
    bare, _, tag = name.partition(".")
    if tag and name not in (known := timm.list_pretrained(f"{bare}.*")):
        hint = f"did you mean {', '.join(closest)}?" if (closest := get_close_matches(name, known)) else f"use {bare}"
        raise UsageError(f"timm has no weights called {tag!r} for {bare}; {hint}")


def similar_names(name: str, count: int = 3) -> list[str]:
    """Return architectures of timm and dfkd with a spelling close to `name`."""
    return get_close_matches(name, timm.list_models(), n=count, cutoff=0.6)


def stated_name(name: str | None) -> str | None:
    """Return the name that a checkpoint states, as torchvision's where only torchvision has such a network."""
    return PREFIX + name if name and not timm.is_model(name) and is_known(PREFIX + name) else name


def _similar(arch: str) -> list[str]:
    """Return architectures with a spelling close to `arch`: torchvision's network of this name, or others."""
    bare, theirs = arch.removeprefix(PREFIX).removeprefix("torchvision."), torchvision_names()
    if bare in theirs:
        return [PREFIX + bare]
    if is_torchvision(arch):
        return [PREFIX + name for name in get_close_matches(bare, theirs, n=3, cutoff=0.6)]
    return similar_names(bare)


def create(arch: str, **arguments: Any) -> nn.Module:
    """Return the network with random weights; the arguments are `num_classes`, `in_chans` and `img_size`."""
    if is_torchvision(arch):
        return create_torchvision(arch.removeprefix(PREFIX), **arguments)
    if is_smp(arch):
        return create_smp(arch, **arguments)
    return timm.create_model(arch, pretrained=False, **arguments)


def plain_module(arch: str) -> nn.Module:
    """Return the network with `PROBE_CLASSES` classes, for the names and shapes of its weights only."""
    if is_torchvision(arch):
        return plain_torchvision(arch.removeprefix(PREFIX), PROBE_CLASSES)
    if is_smp(arch):
        return create_smp(arch, PROBE_CLASSES)
    with quiet("timm"), torch.device("meta"):
        try:
            return timm.create_model(arch, pretrained=False, num_classes=PROBE_CLASSES)
        # Some constructors compute with their weights, which fails on the meta device with errors of many types.
        except Exception:
            with torch.device("cpu"):
                return timm.create_model(arch, pretrained=False, num_classes=PROBE_CLASSES)


def known_input(arch: str) -> DefaultInput | None:
    """Return what images the published weights of the architecture take; None when that is not known."""
    if is_torchvision(arch):
        return default_input(arch.removeprefix(PREFIX))
    cfg = None if is_smp(arch) else timm.get_pretrained_cfg(arch)
    return None if cfg is None else DefaultInput(cfg.num_classes, cfg.input_size, cfg.mean, cfg.std)


def has_fixed_size(arch: str) -> bool:
    """Return whether the weights of the architecture depend on the height and width of the images."""
    if is_torchvision(arch):
        return arch.startswith(f"{PREFIX}vit_")
    cfg = None if is_smp(arch) else timm.get_pretrained_cfg(arch)
    return cfg is not None and cfg.fixed_input_size


def renamings(arch: str) -> list[Callable[[Weights, nn.Module], Weights]]:
    """Return functions that give weights with names of older versions, or of other code, the names of `arch`."""
    if is_torchvision(arch):
        return [present_names]
    if is_smp(arch):
        return []
    file = sys.modules[timm.model_entrypoint(arch).__module__]
    filters = [value for name, value in vars(file).items() if "filter" in name and callable(value)]
    return [_guarded(function) for function in filters]


def _guarded(function: Callable[..., Any]) -> Callable[[Weights, nn.Module], Weights]:
    """Return timm's filter of checkpoint keys as a function that returns what it cannot convert unchanged."""

    def rename(weights: Weights, module: nn.Module) -> Weights:
        try:
            with quiet("timm"):
                takes_module = len(inspect.signature(function).parameters) > 1
                renamed = function(dict(weights), *([module] if takes_module else []))
        # The filters expect the files that they were written for, and fail on others with errors of many types.
        except Exception:
            return weights
        good = isinstance(renamed, dict) and all(isinstance(value, Tensor) for value in renamed.values())
        return renamed if good else weights

    return rename
