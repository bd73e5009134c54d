"""Chooses one of several networks in a checkpoint: the one that is named, or the average of the others."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from dfkd_cli.errors import UsageError
from dfkd_cli.loading.networks_inside import (
    Inside,
    Renaming,
    below,
    best_guess,
    networks_inside,
    prefix_counts,
    required,
)
from dfkd_cli.loading.state_dict import WRAPPING, Checkpoint

T = TypeVar("T")
_AVERAGED = {"ema", "swa", "averaged", "average", "avg", "polyak"}
# Words that do not tell one network from another.
_GENERAL = {"state", "dict", "model", "net", "network", "module", "weights", "params", "online", "raw", "checkpoint"}
_SHOWN = 8


def choose_network(
    checkpoint: Checkpoint, plain: nn.Module, renamings: Sequence[Renaming], wanted: str | None, path: Path
) -> tuple[Inside, tuple[str, ...]]:
    """Return the network to use and notes about the choice; the best guess when none has the names of `plain`.

    `wanted` is the name that the user gave. Raises UsageError when several fit, or none has that name.
    """
    found, near = networks_inside(checkpoint, plain, renamings)
    if not found:
        start = "" if wanted is None else _start(checkpoint, wanted, path)
        return best_guess(checkpoint, plain, start), ()
    labels = label_prefixes([inside.prefix for inside in found])
    named = {labels[inside.prefix]: inside for inside in found}
    if wanted is not None and (under := named_like(named, wanted)):
        return choose(under, path)
    if wanted is not None:
        return best_guess(checkpoint, plain, _start(checkpoint, wanted, path, tuple(named))), ()
    chosen, notes = choose(_distinct(named), path)
    if near:
        labels = label_prefixes([inside.prefix for inside in (chosen, *near)])
        used, *others = (labels[inside.prefix] for inside in (chosen, *near))
        notes = (*notes, f"The network {used!r} is used: others of the same names ({shown(others)}) do not fit.")
    return chosen, notes or _unused_average(checkpoint, plain, chosen)


def choose(named: Mapping[str, T], path: Path) -> tuple[T, tuple[str, ...]]:
    """Return the only network, or the average of the others with a note. Raises UsageError when several are left."""
    left = dict(named)
    for name in named:
        if _is_averaged(name):
            rest = [other for other in named if not _is_averaged(other)]
            base = _words(name) - _AVERAGED
            left = {other: value for other, value in left.items() if not _replaced(other, base, rest)}
    if len(left) > 1:
        raise UsageError(f"{path} contains several networks: {shown(named)}; choose one with --prefix NAME")
    ((name, value),) = left.items()
    if len(named) == 1:
        return value, ()
    others = shown([other for other in named if other != name])
    return value, (f"The averaged (EMA) weights {name!r} are used; --prefix takes the others ({others}).",)


def named_like(named: Mapping[str, T], wanted: str) -> dict[str, T]:
    """Return those with the name, else those whose names contain it as whole parts, the ones that end with it first."""
    parts = _parts(wanted)
    if ".".join(parts) in named:
        return {".".join(parts): named[".".join(parts)]}
    ending = {name: value for name, value in named.items() if _parts(name)[len(_parts(name)) - len(parts) :] == parts}
    return ending or {name: value for name, value in named.items() if _contains(_parts(name), parts)}


def stated_architecture(checkpoint: Checkpoint, wanted: str | None, path: Path) -> tuple[str | None, Any]:
    """Return the architecture that stands beside the weights, and the training arguments beside it; None without.

    Raises UsageError when they are several, and `wanted` names none.
    """
    stated = checkpoint.stated
    if len({arch for arch, _ in stated.values()}) > 1:
        stated = (named_like(stated, wanted) if wanted else {}) or stated
        if len({arch for arch, _ in stated.values()}) > 1:
            names = [f"{place or 'the file itself'} ({arch})" for place, (arch, _) in stated.items()]
            raise UsageError(f"{path} contains several networks: {shown(names)}; choose one with --prefix NAME")
    return next(iter(stated.values()), (None, None))


def label_prefixes(prefixes: Sequence[str]) -> dict[str, str]:
    """Return a name for each prefix: the prefix without the parts that all have at their beginning."""
    places = [prefix.split(".")[:-1] for prefix in prefixes]
    common = 0
    if len(places) > 1:
        while len({place[common] if common < len(place) else None for place in places}) == 1 and common < 99:
            common += 1
    return {prefix: ".".join(place[common:]) for prefix, place in zip(prefixes, places, strict=True)}


def shown(names: Sequence[str] | Mapping[str, object]) -> str:
    """Return the names as a list for a message."""
    listed = [name or "'' (no prefix)" for name in names]
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")


def _start(checkpoint: Checkpoint, wanted: str, path: Path, names: Sequence[str] = ()) -> str:
    """Return the prefix that ends with `wanted`. Raises UsageError when no tensor is below such a prefix."""
    parts = _parts(wanted)
    for tensor in checkpoint.tensors:
        place = tensor.split(".")[:-1]
        for end in range(len(parts), len(place) + 1):
            if place[end - len(parts) : end] == parts:
                return "".join(f"{part}." for part in place[:end])
    names = names or list(dict.fromkeys(name.partition(".")[0] for name in checkpoint.tensors))
    raise UsageError(f"--prefix {wanted}: {path} has no weights below that name; it has {shown(names)}")


def _distinct(named: dict[str, Inside]) -> dict[str, Inside]:
    """Return the networks without those that have the weights of an earlier one."""
    kept: dict[str, Inside] = {}
    for name, inside in named.items():
        if not any(_equal(inside, other) for other in kept.values()):
            kept[name] = inside
    return kept


def _equal(one: Inside, other: Inside) -> bool:
    return one.raw.keys() == other.raw.keys() and all(
        value.dtype == other.raw[name].dtype and torch.equal(value, other.raw[name]) for name, value in one.raw.items()
    )


def _unused_average(checkpoint: Checkpoint, plain: nn.Module, chosen: Inside) -> tuple[str, ...]:
    """Return a note when the file has averaged weights that are no whole network."""
    names = required(plain.state_dict())
    if _is_averaged(chosen.prefix):
        return (f"The weights are averaged ones (EMA), {chosen.prefix.rstrip('.')!r}.",)
    for prefix, count in prefix_counts(checkpoint.tensors, names).items():
        if _is_averaged(prefix) and not prefix.startswith(chosen.prefix or "\0") and 2 * count > len(names):
            missing = next(name for name in sorted(names) if name not in below(checkpoint, prefix))
            lacks = f"it lacks {missing} and {len(names) - count - 1} more" if count < len(names) - 1 else missing
            return (f"The averaged (EMA) weights {prefix.rstrip('.')!r} are not used: {lacks}.",)
    return ()


def _is_averaged(name: str) -> bool:
    return bool(_words(name) & _AVERAGED)


def _replaced(name: str, base: set[str], rest: Sequence[str]) -> bool:
    """Return whether an average with the words `base` is that of `name`."""
    if name not in rest:
        return False
    return _words(name) - _GENERAL == base - _GENERAL or (not base - _GENERAL and len(rest) == 1)


def _words(name: str) -> set[str]:
    """Return the words of a name in lower case, split at signs and capitals."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)}


def _parts(name: str) -> list[str]:
    return [part for part in name.split(".") if part and part not in WRAPPING]


def _contains(parts: list[str], wanted: list[str]) -> bool:
    return any(parts[start : start + len(wanted)] == wanted for start in range(len(parts)))
