"""Which part of what a network returns are the logits."""

from collections.abc import Mapping

from torch import Tensor

from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.networks.returned import class_count


def pick_logits(returned: object, batch: int, output: str | None = None, num_classes: int | None = None) -> Tensor:
    """The logits in what a network returned for a batch: a tensor, or one tensor inside a tuple or a dict.

    `output` names a dict key, a named tuple's field or a position ("0"). Without it the logits are what is called so,
    else the only tensor of shape [batch, classes]. Raises TeacherError when there is none, and UsageError when
    `output` is wrong or missing.
    """
    if isinstance(returned, Tensor):
        if output is not None:
            raise UsageError(f"--output {output}: the network returns a single tensor; leave the flag out")
        return _as_rows(returned, batch)
    parts = _name_parts(returned)
    if output is not None:
        if output not in parts:
            raise UsageError(f"--output {output}: the network returns {_describe(parts)}; name one of these")
        return _as_rows(parts[output], batch)
    if "logits" in parts and (logits := _as_rows(parts["logits"], batch)).ndim == 2:
        return logits
    candidates = _candidates(parts, batch, num_classes)
    if len(candidates) == 1:
        return candidates[0]
    classes = "classes" if num_classes is None else num_classes
    seen = f"the network returns {_describe(parts)} for {batch} images, and"
    if not candidates:
        raise TeacherError(f"{seen} none of these has the shape [{batch}, {classes}] of logits")
    raise UsageError(
        f"{seen} {len(candidates)} of these have the shape [{batch}, {classes}]: choose the logits with --output NAME"
    )


def _candidates(parts: dict[str, Tensor], batch: int, num_classes: int | None) -> list[Tensor]:
    """Every part that may be the logits, as [B, K].

    Maps of one pixel are left out beside a single [B, K] that is narrower: they are what it was computed from. [B] is
    left out where anything else fits: it says how sure the network is.
    """
    rows = [(part, _as_rows(part, batch)) for part in parts.values()]
    fitting = [
        (part, row)
        for part, row in rows
        if row.ndim == 2 and row.shape[0] == batch and num_classes in (None, class_count(row.shape[1]))
    ]
    fitting = [(part, row) for part, row in fitting if part.ndim > 1] or fitting
    flat = [row for part, row in fitting if part.ndim == 2]
    if len(flat) == 1 and all(row.shape[1] > flat[0].shape[1] for part, row in fitting if part.ndim > 2):
        return flat
    return [row for _, row in fitting]


def _as_rows(logits: Tensor, batch: int) -> Tensor:
    """[B, K] of what a last convolution leaves, [B, K, 1, 1], and of an only output that was squeezed, [B]."""
    if logits.ndim < 2 and (batch == 1 or logits.shape == (batch,)):
        return logits.reshape(batch, -1)
    return logits.flatten(1) if logits.ndim > 2 and logits.shape[2:].numel() == 1 else logits


def _name_parts(returned: object) -> dict[str, Tensor]:
    """The tensors one level down, by the name `--output` knows them by."""
    if isinstance(returned, Mapping):
        named = {str(name): part for name, part in returned.items()}
    elif isinstance(returned, tuple | list):
        fields = getattr(returned, "_fields", range(len(returned)))
        named = {str(name): part for name, part in zip(fields, returned, strict=True)}
    else:
        raise TeacherError(
            f"the network returns an object of type {type(returned).__name__}: "
            "a tensor, or a tuple or dict with the logits inside, is needed"
        )
    return {name: part for name, part in named.items() if isinstance(part, Tensor)}


def _describe(parts: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(part.shape)}" for name, part in parts.items()) or "no tensor"
