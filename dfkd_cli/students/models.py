"""The function of `dfkd models`: the architectures that `--student` accepts."""

import fnmatch
from dataclasses import dataclass
from functools import partial

import timm
import torch

from dfkd_cli.errors import UsageError
from dfkd_cli.loading.catalogue import similar_names
from dfkd_cli.models import REFERENCE_ARCHS


@dataclass(frozen=True)
class ReferenceNetwork:
    """An architecture that dfkd defines and timm does not."""

    name: str
    input_size: tuple[int, int, int]  # channels, height, width, as in its paper
    num_classes: int  # 10, or those of its published weights
    parameters: int  # for that input size and these classes


@dataclass(frozen=True)
class Students:
    """What `dfkd models --json` prints."""

    reference: tuple[ReferenceNetwork, ...]
    timm: tuple[str, ...]


def list_students(pattern: str | None) -> Students:
    """Return the architectures that match `pattern`, which is a shell pattern or part of a name; None matches all.

    Raises UsageError if none matches.
    """
    matches = partial(fnmatch.fnmatch, pat=_as_pattern(pattern))
    own = [name for name in REFERENCE_ARCHS if matches(name)]
    others = [name for name in timm.list_models() if matches(name) and name not in REFERENCE_ARCHS]
    if not own and not others:
        close = similar_names(pattern or "")
        hint = f"did you mean {', '.join(close)}?" if close else "try part of a name, such as resnet"
        raise UsageError(f"no architecture matches '{pattern}'; {hint}")
    return Students(tuple(_reference_network(name) for name in own), tuple(others))


def _as_pattern(pattern: str | None) -> str:
    if not pattern:
        return "*"
    return pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"


def _reference_network(name: str) -> ReferenceNetwork:
    with torch.device("meta"):
        network = timm.create_model(name)
    config = vars(network)["pretrained_cfg"]
    channels, height, width = config["input_size"]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return ReferenceNetwork(name, (channels, height, width), config["num_classes"], parameters)
