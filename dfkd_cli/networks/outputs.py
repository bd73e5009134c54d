"""Selection of the logits among the tensors that a network returns."""

from collections.abc import Mapping

from torch import Tensor

from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.networks.returned import class_count
from dfkd_cli.networks.tasks import SEGMENTATION

_DENSE_NAMES = ("logits", "out")  # of one answer per pixel in a dict; `aux` is an auxiliary head


def pick_logits(returned: object, batch: int, output: str | None = None, num_classes: int | None = None) -> Tensor:
    """Return the logits from what a network returned for a batch: a tensor, or a tuple or dict of tensors.

    `output` is a dict key, a named tuple's field or a position ("0"), joined by dots for nested ones. Without it the
    logits are the entry `logits` of shape [batch, classes], else the entry `logits` or `out` of shape [batch, classes,
    h, w], else the only tensor of the first of these shapes, else the only one of the second. Raises TeacherError when
    there is none, and UsageError when `output` is wrong or missing.
    """
    if isinstance(returned, Tensor):
        if output is not None:
            raise UsageError(f"--output {output}: the network returns a single tensor; remove the flag")
        return _as_rows(returned, batch)
    tensors = _named_tensors(returned)
    if output is not None:
        if output not in tensors:
            raise UsageError(f"--output {output}: the network returns {_describe(tensors)}; name one of these")
        return _as_rows(tensors[output], batch)
    named = [tensor for name, tensor in tensors.items() if name.rpartition(".")[2] == "logits"]
    if len(named) == 1 and (logits := _as_rows(named[0], batch)).ndim == 2:
        return logits
    if best := _best_classes(tensors):
        raise TeacherError(
            f"the network returns {_describe(tensors)}: scores in descending order and the numbers of their classes, "
            f"the best {best} of each image; export it without its last step, `topk` or `sort`"
        )
    candidates = _candidates(tensors, batch, num_classes)
    maps = {name: tensor for name, tensor in tensors.items() if SEGMENTATION.accepts(tensor, batch)}
    dense = next((maps[name] for name in _DENSE_NAMES if name in maps), None)
    # Beside answers per pixel a wider row is an embedding; beside a wider map a row holds the logits.
    if dense is not None and ("logits" in maps or all(row.shape[1] > dense.shape[1] for row in candidates)):
        return dense
    if len(candidates) == 1:
        return candidates[0]
    if not candidates and len(maps) == 1:
        return next(iter(maps.values()))
    classes = "classes" if num_classes is None else num_classes
    returns = f"the network returns {_describe(tensors)} for {batch} images, and"
    if not candidates and maps:
        raise UsageError(
            f"{returns} {len(maps)} of these have the shape [{batch}, {classes}, height, width]; "
            "choose the logits with --output NAME"
        )
    if not candidates:
        raise TeacherError(f"{returns} none of these has the shape [{batch}, {classes}] of logits")
    raise UsageError(
        f"{returns} {len(candidates)} of these have the shape [{batch}, {classes}]; "
        "choose the logits with --output NAME"
    )


def _candidates(tensors: dict[str, Tensor], batch: int, num_classes: int | None) -> list[Tensor]:
    """Return every tensor that can be the logits, as [B, K].

    One-pixel maps wider than the only [B, K] are left out: they are the embedding that it was computed from. A tensor
    [B] is left out when another tensor fits: it is a confidence.
    """
    rows = [(tensor, _as_rows(tensor, batch)) for tensor in tensors.values()]
    fitting = [
        (tensor, row)
        for tensor, row in rows
        if row.ndim == 2 and row.shape[0] == batch and num_classes in (None, class_count(row.shape[1]))
    ]
    fitting = [(tensor, row) for tensor, row in fitting if tensor.is_floating_point()] or fitting  # no class indices
    fitting = [(tensor, row) for tensor, row in fitting if tensor.ndim > 1] or fitting
    flat = [row for tensor, row in fitting if tensor.ndim == 2]
    if len(flat) == 1 and all(row.shape[1] > flat[0].shape[1] for tensor, row in fitting if tensor.ndim > 2):
        return flat
    return [row for _, row in fitting]


def _best_classes(tensors: dict[str, Tensor]) -> int | None:
    """Return how many classes the outputs name per image, where these are the results of a sorting; else None."""
    scores, classes = list(tensors.values()) if len(tensors) == 2 else (None, None)
    if scores is None or classes is None or scores.shape != classes.shape or scores.ndim != 2 or scores.shape[1] < 3:
        return None
    whole = scores.is_floating_point() and not classes.is_floating_point()
    return scores.shape[1] if whole and bool((scores.diff(dim=1) <= 0).all()) else None


def _as_rows(logits: Tensor, batch: int) -> Tensor:
    """Return [B, K] for the result [B, K, 1, 1] of a last convolution, and [B, 1] for a squeezed single output [B]."""
    if logits.ndim < 2 and (batch == 1 or logits.shape == (batch,)):
        return logits.reshape(batch, -1)
    return logits.flatten(1) if logits.ndim > 2 and logits.shape[2:].numel() == 1 else logits


def _named_tensors(returned: object) -> dict[str, Tensor]:
    """Return the tensors inside, by the names that `--output` accepts; "a.0" is the first tensor of the entry a."""
    if isinstance(returned, Mapping):
        named = {str(name): value for name, value in returned.items()}
    elif isinstance(returned, tuple | list):
        fields = getattr(returned, "_fields", range(len(returned)))
        named = {str(name): value for name, value in zip(fields, returned, strict=True)}
    else:
        raise TeacherError(
            f"the network returns an object of type {type(returned).__name__}; "
            "it must return a tensor, or a tuple or dict that contains the logits"
        )
    tensors: dict[str, Tensor] = {}
    for name, value in named.items():
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, Mapping | tuple | list):
            tensors |= {f"{name}.{inner}": tensor for inner, tensor in _named_tensors(value).items()}
    return tensors


def _describe(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items()) or "no tensor"
