"""Finds the networks of one architecture inside a checkpoint: below which prefix, under which names."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dfkd_cli.loading.catalogue import PROBE_CLASSES
from dfkd_cli.loading.state_dict import Checkpoint

Renaming = Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]
_COUNTER = "num_batches_tracked"  # files older than PyTorch 0.4.1 have none, and nothing here needs it
_SHARE = 0.5  # of the tensors of a network: a prefix with fewer holds no such network


@dataclass(frozen=True)
class Inside:
    """The weights below one prefix of a checkpoint, and how their names become those of the architecture."""

    prefix: str  # "", or ends with a dot
    raw: dict[str, Tensor]
    renaming: Renaming

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the weights under the names that `module` gives them."""
        return self.renaming(dict(self.raw), module)


def networks_inside(
    checkpoint: Checkpoint, plain: nn.Module, renamings: Iterable[Renaming]
) -> tuple[list[Inside], list[Inside]]:
    """Return the networks that fit `plain`, and those that only have all of its names; both in the order of the file.

    `renamings` are tried in turn. A network fits without further names, when its shapes are those of `plain` but for
    the classes and the channels of the images. When none does, the first list is that of the names.
    """
    expected = plain.state_dict()
    names = required(expected)
    complete = [prefix for prefix, count in prefix_counts(checkpoint.tensors, names).items() if count == len(names)]
    named = found = [
        Inside(prefix, _without_others(checkpoint, prefix, complete, names), keep_names) for prefix in complete
    ]
    for renaming in (keep_names, *renamings):
        if renaming is not keep_names:
            found = [Inside(root, below(checkpoint, root), renaming) for root in _roots(checkpoint, len(names))]
        fitting = [inside for inside in found if _fits(inside.weights(plain), expected)]
        if fitting:
            return fitting, [inside for inside in named if inside not in fitting]
    return named, []


def _without_others(checkpoint: Checkpoint, prefix: str, complete: Sequence[str], names: set[str]) -> dict[str, Tensor]:
    """Return the weights below a prefix without those of other networks further below."""
    others = tuple(other.removeprefix(prefix) for other in complete if other.startswith(prefix) and other != prefix)
    return {name: value for name, value in below(checkpoint, prefix, names).items() if not name.startswith(others)}


def best_guess(checkpoint: Checkpoint, plain: nn.Module, start: str = "") -> Inside:
    """Return the weights below `start` that share most names with `plain`; where hardly any, those of the fullest dict.

    For error messages that compare the two.
    """
    names = required(plain.state_dict())
    counts = prefix_counts([name for name in checkpoint.tensors if name.startswith(start)], names)
    prefix, count = max(counts.items(), key=lambda item: (item[1], -len(item[0])), default=("", 0))
    if count < _SHARE * len(names):
        homes = Counter(home for name, home in checkpoint.homes.items() if name.startswith(start))
        fullest = homes.most_common(1)[0][0]
        prefix = max(f"{fullest}." if fullest else "", start, key=len)
    return Inside(prefix, below(checkpoint, prefix, names), keep_names)


def keep_names(weights: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Return the weights unchanged: the renaming of a file that has the names of the architecture."""
    return weights


def without_wrappers(weights: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Return the weights without the `module.` that DataParallel adds to the names of a part of a network."""
    return {".".join(part for part in name.split(".") if part != "module"): value for name, value in weights.items()}


def required(expected: Mapping[str, Tensor]) -> set[str]:
    """Return the names that a file must have."""
    return {name for name in expected if not name.endswith(_COUNTER)}


def prefix_counts(tensors: Iterable[str], names: set[str]) -> Counter[str]:
    """Return for each prefix how many of `names` follow it."""
    counts: Counter[str] = Counter()
    for name in tensors:
        start = 0
        while True:
            if name[start:] in names:
                counts[name[:start]] += 1
            dot = name.find(".", start)
            if dot < 0:
                break
            start = dot + 1
    return counts


def below(checkpoint: Checkpoint, prefix: str, names: set[str] | None = None) -> dict[str, Tensor]:
    """Return the weights below a prefix without it; with `names`, from the dicts that hold one of these only.

    Other objects, such as the state of an optimizer, are in dicts of their own.
    """
    found = {name: value for name, value in checkpoint.tensors.items() if name.startswith(prefix)}
    if names is not None:
        homes = {checkpoint.homes[name] for name in found if name.removeprefix(prefix) in names}
        found = {name: value for name, value in found.items() if not homes or checkpoint.homes[name] in homes}
    return {name.removeprefix(prefix): value for name, value in found.items()}


def _roots(checkpoint: Checkpoint, size: int) -> list[str]:
    """Return the prefixes below which there are about as many tensors as a network has."""
    counts: Counter[str] = Counter()
    for name in checkpoint.tensors:
        parts = name.split(".")
        counts.update("".join(f"{part}." for part in parts[:depth]) for depth in range(len(parts)))
    return [prefix for prefix, count in counts.items() if count >= _SHARE * size]


def is_auxiliary(name: str) -> bool:
    """Return whether a weight belongs to an auxiliary head, which only a training uses."""
    return name.lower().startswith("aux")


def _fits(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Return whether there are no further names, and all shapes fit but the classes and the channels of the images."""
    if any(name not in expected and not is_auxiliary(name) for name in weights) or required(expected) - weights.keys():
        return False
    stem = next((name for name, value in expected.items() if value.ndim == 4), None)
    return all(_same_shape(weights[name], value, name == stem) for name, value in expected.items() if name in weights)


def _same_shape(weight: Tensor, value: Tensor, stem: bool) -> bool:
    """Return whether the shapes are equal but for the classes of a head and the channels of a stem."""
    shapes = [list(tensor.shape) for tensor in (weight, value)]
    for shape in shapes:
        if value.shape[:1] == (PROBE_CLASSES,):
            shape[:1] = []
        elif stem:
            shape[1:2] = []
    return shapes[0] == shapes[1]
