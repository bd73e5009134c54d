"""Finds the weights inside checkpoints of common training scripts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkd_cli.errors import TeacherError

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_DEEPEST = 4
_WRAPPING = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one network, and the facts that the file states about them."""

    weights: dict[str, Tensor]
    arch: str | None  # in timm training checkpoints
    metadata: dict[str, Any]  # num_classes, input_size, mean, std from the training arguments
    trained_by_timm: bool  # then mean, std and size default to those of the architecture
    notes: tuple[str, ...]


def unwrap(content: Any, path: Path) -> Checkpoint:
    """Return the checkpoint inside the result of torch.load; raise TeacherError when it has no state dict."""
    notes: list[str] = []
    arch, args = None, None
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            raise TeacherError(f"{path} contains {_article(content)}, not a state dict; save model.state_dict()")
        if isinstance(content.get("arch"), str):
            arch, args = content["arch"], content.get("args")
        averaged = _first_mapping(content, _AVERAGED)
        inner = averaged or _first_mapping(content, _WRAPPERS)
        if inner is None:
            break
        if averaged is not None:
            notes.append(f"The checkpoint contains averaged (EMA) weights under {averaged!r}, which are used.")
        content = content[inner]
    weights = {str(key): value.detach() for key, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise TeacherError(f"{path} contains no tensors, only the keys {_first_keys(content)}; save model.state_dict()")
    return Checkpoint(strip_prefixes(weights), arch, _training_arguments(args), args is not None, tuple(notes))


def strip_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without the name prefixes of DistributedDataParallel, FSDP and torch.compile, also nested."""
    # AveragedModel stores the number of its updates beside the weights.
    clean = {_WRAPPING.sub("", key): value for key, value in weights.items() if key != "n_averaged"}
    while clean and all(key.startswith("module.") for key in clean):
        clean = {key.removeprefix("module."): value for key, value in clean.items()}
    return clean


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


def _first_mapping(content: Mapping[Any, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if _has_weights(content.get(name))), None)


def _has_weights(content: Any) -> bool:
    return isinstance(content, Mapping) and any(isinstance(value, Tensor | Mapping) for value in content.values())


def _training_arguments(args: Any) -> dict[str, Any]:
    """Return what timm's training arguments state about the input; None values are architecture defaults, left out."""
    values = vars(args) if hasattr(args, "__dict__") else args
    if not isinstance(values, Mapping):
        return {}
    facts = {name: values.get(name) for name in ("num_classes", "mean", "std", "input_size")}
    if facts["input_size"] is None and isinstance(values.get("img_size"), int):
        facts["input_size"] = [values.get("in_chans") or 3, values["img_size"], values["img_size"]]
    return {name: value for name, value in facts.items() if value is not None}


def _article(content: Any) -> str:
    name = type(content).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def _first_keys(content: Mapping[Any, Any]) -> str:
    return ", ".join(repr(key)[:40] for key in list(content)[:5]) or "none"
