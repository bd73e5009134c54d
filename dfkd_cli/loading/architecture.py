"""Builds the architecture named by `--arch` or the file, with the weights of the file."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.loading.failures import EXPORT_LINES, damaged_file, quiet
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.suggest import closest_architectures, similar_names
from dfkd_cli.networks.layer_sizes import fit_layers

_SHOWN = 3
_PROBE = 9_973  # number of classes that no other layer has as its number of outputs


def check_known(arch: str) -> None:
    """Raise UsageError with similar names when timm has no architecture `arch`."""
    if not timm.is_model(arch):
        similar = similar_names(arch)
        hint = f"did you mean {', '.join(similar)}?" if similar else "use a name from timm.list_models()"
        raise UsageError(f"unknown architecture {arch!r}; {hint}")
    check_tag(arch)


def check_tag(name: str) -> None:
    """Raise UsageError when `name` is a timm architecture with a tag after a dot, and timm has no such weights."""
    bare, _, tag = name.partition(".")
    if tag and name not in (known := timm.list_pretrained(f"{bare}.*")):
        hint = f"did you mean {', '.join(closest)}?" if (closest := get_close_matches(name, known)) else f"use {bare}"
        raise UsageError(f"timm has no weights called {tag!r} for {bare}; {hint}")


def no_architecture(path: Path, weights: Mapping[str, Tensor]) -> UsageError:
    """Return the error for a state dict without an architecture name."""
    close = closest_architectures(weights, None)
    hint = f"closest known: {', '.join(close)}" if close else "no known architecture is close"
    return UsageError(
        f"{path} contains only weights; add --arch NAME ({hint}), or for a network that timm lacks, {EXPORT_LINES}"
    )


def build(
    arch: str, weights: Mapping[str, Tensor], findings: Findings, path: Path, narrowed: bool = False
) -> nn.Module:
    """Return the network `arch` with `weights`, loaded strictly; offers classes and channels to `findings`.

    The layers of a narrowed network get the sizes of the weights.

    Raises TeacherError when they do not fit, with the first mismatches and the closest architectures.
    """
    check_known(arch)
    plain = plain_weights(arch)
    weights = _unwrapped(plain, weights)
    arguments = fitting_arguments(arch, plain, weights, findings)
    with damaged_file(path, f"a checkpoint of {arch}"), quiet("timm"):
        module = timm.create_model(arch, pretrained=False, **arguments)
        if narrowed:
            fit_layers(module, weights)
    mismatches = _mismatches(module.state_dict(), weights)
    if mismatches:
        raise _misfit(arch, weights, mismatches, path)
    with damaged_file(path, f"a checkpoint of {arch}"):
        module.load_state_dict(dict(weights), strict=False)  # only num_batches_tracked can still be missing
    return module


def offer_defaults(arch: str, trained_by_timm: bool, findings: Findings) -> None:
    """Offer the input size and normalisation that `arch` has by default.

    They are offered when timm's script trained the weights without other arguments, or when the weights have the
    default classes and channels. A modified network may have been trained with another normalisation, so it needs
    flags.
    """
    cfg = timm.get_pretrained_cfg(arch)
    if cfg is None:
        return
    size = findings.values.get("input_size")
    channels = findings.channels or (size[0] if size else cfg.input_size[0])
    same_form = findings.values.get("num_classes") == cfg.num_classes and channels == cfg.input_size[0]
    if channels == cfg.input_size[0] and (trained_by_timm or same_form):
        for name in ("input_size", "mean", "std"):
            findings.offer(name, tuple(getattr(cfg, name)), f"default of {arch}")


def fitting_arguments(
    arch: str, plain: Mapping[str, Tensor], weights: Mapping[str, Tensor], findings: Findings
) -> dict[str, Any]:
    """Return the arguments for `arch`: classes and channels of `weights`, and the image size where it is fixed.

    `plain` is the result of `plain_weights(arch)`. Offers classes and channels to `findings`;
    raises UsageError or TeacherError when another source contradicts the weights.
    """
    cfg, size = timm.get_pretrained_cfg(arch), findings.values.get("input_size")
    head, stem = _head(plain), _stem(plain)
    arguments: dict[str, Any] = {}
    if head in weights and weights[head].ndim >= 2:
        classes = weights[head].shape[0]
        findings.outputs_must_agree(classes, f"the head {head}")
        arguments["num_classes"] = classes
    default = 3 if cfg is None else cfg.input_size[0]
    # Networks that move pixels to channels before the stem have several stem channels per image channel.
    per_channel, grouped = divmod(plain[stem].shape[1], default) if stem else (0, 0)
    if stem in weights and weights[stem].ndim >= 2 and per_channel and not grouped:
        channels = weights[stem].shape[1] // per_channel
        findings.channels_must_agree(channels, f"the stem {stem}")
        arguments["in_chans"] = channels
    elif size is not None:
        arguments["in_chans"] = size[0]
    if size is not None and cfg is not None and cfg.fixed_input_size:
        arguments["img_size"] = size[1:]
    return arguments


def plain_weights(arch: str) -> dict[str, Tensor]:
    """Return the weights of `arch` with `_PROBE` classes, for their names and shapes only."""
    with quiet("timm"), torch.device("meta"):
        try:
            return timm.create_model(arch, pretrained=False, num_classes=_PROBE).state_dict()
        # Some constructors compute with their weights, which fails on the meta device with errors of many types.
        except Exception:
            with torch.device("cpu"):
                return timm.create_model(arch, pretrained=False, num_classes=_PROBE).state_dict()


def _head(plain: Mapping[str, Tensor]) -> str:
    """Return the key of the last layer's weight; "" when there is none."""
    return next((key for key, tensor in plain.items() if key.endswith("weight") and tensor.shape[:1] == (_PROBE,)), "")


def _stem(plain: Mapping[str, Tensor]) -> str:
    """Return the key of the first convolution's weight; "" when there is none."""
    return next((key for key, tensor in plain.items() if key.endswith("weight") and tensor.ndim == 4), "")


def _unwrapped(plain: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights under the names in `plain`, without a common prefix (`model.`) and other modules' weights."""
    names = [name for name in plain if not name.endswith("num_batches_tracked")]
    for key in weights:
        prefix = key.removesuffix(names[0])
        if key.endswith(names[0]) and all(prefix + name in weights for name in names):
            return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    return weights


def _mismatches(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Return one phrase per difference in name, shape or type between `weights` and `expected`."""
    # Files older than PyTorch 0.4.1 have no num_batches_tracked, and nothing here needs it.
    missing = [key for key in expected if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in expected]
    phrases = [f"missing {key}" for key in missing] + [f"unexpected {key}" for key in unexpected]
    for key, tensor in expected.items():
        if key in weights and weights[key].shape != tensor.shape:
            phrases.append(f"{key} is {_shape(weights[key])} in the file, {_shape(tensor)} in the network")
        elif key in weights and tensor.is_floating_point() and not weights[key].is_floating_point():
            phrases.append(f"{key} holds {str(weights[key].dtype).removeprefix('torch.')} instead of real numbers")
    return phrases


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _misfit(arch: str, weights: Mapping[str, Tensor], mismatches: list[str], path: Path) -> TeacherError:
    shown = "; ".join(mismatches[:_SHOWN])
    rest = f"; and {len(mismatches) - _SHOWN} more" if len(mismatches) > _SHOWN else ""
    close = [name for name in closest_architectures(weights, arch, _SHOWN + 1) if name != arch][:_SHOWN]
    hint = f"closest known architectures: {', '.join(close)}" if close else "no known architecture is close"
    return TeacherError(
        f"{path} does not fit --arch {arch}: {shown}{rest}; {hint}; for a network that timm lacks, {EXPORT_LINES}"
    )
