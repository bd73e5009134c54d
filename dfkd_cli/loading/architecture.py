"""Builds the architecture named by `--arch` or the file, with the weights of the file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.loading.catalogue import (
    PROBE_CLASSES,
    Weights,
    check_known,
    create,
    has_fixed_size,
    is_torchvision,
    known_input,
    plain_module,
    renamings,
)
from dfkd_cli.loading.failures import EXPORT_LINES, damaged_file, quiet
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.networks_inside import Inside, is_auxiliary, keep_names, without_wrappers
from dfkd_cli.loading.several import choose_network
from dfkd_cli.loading.state_dict import Checkpoint, check_finite
from dfkd_cli.loading.suggest import closest_architectures, in_words
from dfkd_cli.loading.torchvision_zoo import image_side
from dfkd_cli.networks.layer_sizes import fit_layers

_SHOWN = 3
NO_ARGUMENTS: Mapping[str, Any] = {}


def no_architecture(path: Path, checkpoint: Checkpoint) -> UsageError:
    """Return the error for a state dict without an architecture name."""
    close = closest_architectures(checkpoint.tensors, None)
    hint = in_words(close) if close else "no known architecture is close"
    return UsageError(
        f"{path} contains only weights; add --arch NAME ({hint}), or for a network that timm lacks, {EXPORT_LINES}"
    )


def build(
    arch: str,
    checkpoint: Checkpoint,
    wanted: str | None,
    findings: Findings,
    path: Path,
    arguments: Mapping[str, Any] = NO_ARGUMENTS,
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the network `arch` with its weights in the file, loaded strictly, and notes about them.

    `arguments` of timm.create_model are those that do not follow from the weights. Offers classes and channels to
    `findings`. Raises TeacherError when the weights do not fit, with the first mismatches and the closest
    architectures, and UsageError when several networks fit and `wanted` names none.
    """
    check_known(arch)
    plain = plain_module(arch)
    inside, notes = choose_network(checkpoint, plain, other_names(arch), wanted, path)
    check_finite(inside.raw, path)
    module, more = _assembled(arch, plain, inside, findings, path, False, arguments)
    return module, (*notes, *more)


def build_student(
    arch: str,
    weights: Mapping[str, Tensor],
    findings: Findings,
    path: Path,
    narrowed: bool,
    arguments: Mapping[str, Any] = NO_ARGUMENTS,
) -> nn.Module:
    """Return the network `arch` with weights that have its names; layers of a narrowed network get their sizes.

    Offers to `findings` and raises TeacherError like `build`.
    """
    check_known(arch)
    inside = Inside("", dict(weights), keep_names)
    return _assembled(arch, plain_module(arch), inside, findings, path, narrowed, arguments)[0]


def other_names(arch: str) -> list[Callable[[Weights, nn.Module], Weights]]:
    """Return what is tried in turn on weights that do not have the names of `arch`."""
    after = [_chained(without_wrappers, renaming) for renaming in renamings(arch)]
    return [without_wrappers, *renamings(arch), *after]


def offer_defaults(arch: str, trained_by_timm: bool, findings: Findings) -> None:
    """Offer the input size, normalisation and preprocessing that `arch` has by default.

    They are offered when timm's script trained the weights without other arguments, or when the weights have the
    default classes and channels. A modified network may have been trained with another normalisation, so it needs
    flags.
    """
    known = known_input(arch)
    if known is None:
        return
    size = findings.values.get("input_size")
    channels = findings.channels or (size[0] if size else known.input_size[0])
    same_form = findings.values.get("num_classes") == known.num_classes and channels == known.input_size[0]
    if channels == known.input_size[0] and (trained_by_timm or same_form):
        for name in ("input_size", "mean", "std"):
            findings.offer(name, tuple(getattr(known, name)), f"default of {arch}")
    if trained_by_timm and (cfg := timm.get_pretrained_cfg(arch)) is not None:  # other scripts have other habits
        for name in ("crop_pct", "interpolation", "crop_mode"):
            findings.offer(name, getattr(cfg, name), f"default of {arch}")


def fitting_arguments(
    arch: str, plain: Mapping[str, Tensor], weights: Mapping[str, Tensor], findings: Findings
) -> dict[str, Any]:
    """Return the arguments for `arch`: classes and channels of `weights`, and the image size where it is fixed.

    `plain` is the state dict of `plain_module(arch)`. Offers classes and channels to `findings`;
    raises UsageError or TeacherError when another source contradicts the weights.
    """
    known = known_input(arch)
    head, stem = _head(plain), _stem(plain)
    arguments: dict[str, Any] = {}
    if head in weights and weights[head].ndim >= 2:
        classes = weights[head].shape[0]
        findings.outputs_must_agree(classes, f"the head {head}")
        arguments["num_classes"] = classes
    default = 3 if known is None else known.input_size[0]
    # Networks that move pixels to channels before the stem have several stem channels per image channel.
    per_channel, grouped = divmod(plain[stem].shape[1], default) if stem else (0, 0)
    if stem in weights and weights[stem].ndim >= 2 and per_channel and not grouped:
        channels = weights[stem].shape[1] // per_channel
        findings.channels_must_agree(channels, f"the stem {stem}")
        arguments["in_chans"] = channels
    elif "input_size" in findings.values:
        arguments["in_chans"] = findings.values["input_size"][0]
    side = image_side(weights) if is_torchvision(arch) else None
    if side is not None:
        findings.must_agree("input_size", (arguments.get("in_chans", 3), side, side), "the position embedding")
    size = findings.values.get("input_size")
    if size is not None and has_fixed_size(arch):
        arguments["img_size"] = size[1:]
    return arguments


def _assembled(
    arch: str,
    plain: nn.Module,
    inside: Inside,
    findings: Findings,
    path: Path,
    narrowed: bool,
    given: Mapping[str, Any],
) -> tuple[nn.Module, tuple[str, ...]]:
    arguments = {**given} | fitting_arguments(arch, plain.state_dict(), inside.weights(plain), findings)
    with damaged_file(path, f"a checkpoint of {arch}"), quiet("timm"):
        module = create(arch, **arguments)
        if narrowed:
            fit_layers(module, inside.raw)
    weights, expected = inside.weights(module), module.state_dict()
    extra = [name for name in weights if name not in expected and is_auxiliary(name)]
    weights = {name: value for name, value in weights.items() if name not in extra}
    mismatches = _mismatches(expected, weights)
    if mismatches:
        raise _misfit(arch, inside.raw, mismatches, path)
    with damaged_file(path, f"a checkpoint of {arch}"):
        expected.update(weights)  # with the versions of the layers, which torchvision's MNASNet requires
        module.load_state_dict(expected)
    heads = ", ".join(dict.fromkeys(name.partition(".")[0] for name in extra))
    return module, (f"The auxiliary heads {heads} are left out: only training uses them.",) if heads else ()


def _chained(
    first: Callable[[Weights, nn.Module], Weights], second: Callable[[Weights, nn.Module], Weights]
) -> Callable[[Weights, nn.Module], Weights]:
    return lambda weights, module: second(first(weights, module), module)


def _head(plain: Mapping[str, Tensor]) -> str:
    """Return the key of the last layer's weight; "" when there is none."""
    is_head = ((key, tensor.shape[:1] == (PROBE_CLASSES,)) for key, tensor in plain.items() if key.endswith("weight"))
    return next((key for key, found in is_head if found), "")


def _stem(plain: Mapping[str, Tensor]) -> str:
    """Return the key of the first convolution's weight; "" when there is none."""
    return next((key for key, tensor in plain.items() if key.endswith("weight") and tensor.ndim == 4), "")


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
    close = [match for match in closest_architectures(weights, arch, _SHOWN + 1) if match.name != arch][:_SHOWN]
    hint = in_words(close) if close else "no known architecture is close"
    return TeacherError(
        f"{path} does not fit --arch {arch}: {shown}{rest}; {hint}; for a network that timm lacks, {EXPORT_LINES}"
    )
