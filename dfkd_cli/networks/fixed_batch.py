"""Archives that accept only one batch size: detection of that size, and forwards in pieces of it."""

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dfkd_cli.errors import DfkdError, TeacherError
from dfkd_cli.networks.base import Outputs
from dfkd_cli.networks.forward_error import error_line, failed_forward

TOLERANCE = 1e-2  # relative to the largest logit; outputs of a deterministic network for the same images differ by less
_SMALLEST = 1e-30  # an untrained last layer can return only zeros
_RANDOM_FACTOR = 3.0  # differences between repeated forwards of a random network rarely vary by more
# The per-channel variance of a smaller batch is too noisy for synthesis.
_SMALLEST_USEFUL_BATCH = 8
# A tensor of the program, instead of a list of lengths, can fix its batch size: only torch's message shows that.
_OTHER_ROWS = re.compile(r"size of tensor b \((\d+)\) at non-singleton dimension 0")
_OUT_OF_ORDER = "do not follow the order of the images"

_HOW_TO_EXPORT = """export it for any batch size with
  program = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
  torch.export.save(program, "teacher.pt2")
where x has at least 2 images; for torch.jit.trace, use x.flatten(1) in the model instead of x.view(batch, -1)"""


def find_batch_size(
    call: Callable[[Tensor], Tensor], make_images: Callable[[int], Tensor], candidates: Iterable[int]
) -> int | None:
    """Return the only batch size at which `call` gives one independent row per image; None when any size works.

    `candidates` are sizes to try when batches of 5 or 3 fail. Raises ForwardError when none
    works, and TeacherError when only one below 8 does.
    """
    failure = _failure(call, make_images(5)) or _failure(call, make_images(3))
    if failure is None:
        return None
    # One image has no order, so that it cannot show that rows are mixed.
    smallest = 2 if isinstance(failure, str) and _OUT_OF_ORDER in failure else 1
    for size in sorted(
        size for size in {*candidates, *map(int, _OTHER_ROWS.findall(str(failure)))} if size >= smallest
    ):
        if _failure(call, make_images(size)) is None:
            if size < _SMALLEST_USEFUL_BATCH:
                raise TeacherError(
                    f"the network works at batch size {size} only, too small for batch statistics; {_HOW_TO_EXPORT}"
                )
            return size
    if isinstance(failure, DfkdError):
        raise failure
    raise failed_forward(make_images(1).shape[1:], failure)


@torch.no_grad()
def _failure(call: Callable[[Tensor], Tensor], images: Tensor) -> str | DfkdError | None:
    """Return the reason why `call` does not work on this batch, or None when it does."""
    try:
        logits = call(images.clone())  # some networks change their input in place
    except DfkdError as error:
        return error
    except Exception as error:  # a network from outside can raise anything
        return error_line(error)
    if logits.ndim == 0 or logits.shape[0] != images.shape[0]:
        return f"{images.shape[0]} images give outputs of shape {list(logits.shape)}"
    if not torch.isfinite(logits).all():
        return None  # damaged weights: the batch size cannot be judged
    by_order = largest_difference(call(images.flip(0)).flip(0), logits)
    if by_order > TOLERANCE and by_order > _RANDOM_FACTOR * largest_difference(call(images.clone()), logits):
        return f"its outputs for {images.shape[0]} images {_OUT_OF_ORDER}"
    return None


def largest_difference(logits: Tensor, reference: Tensor) -> float:
    """Return the largest absolute difference, relative to the largest absolute logit of `reference`."""
    return float((logits - reference).abs().max() / reference.abs().max().clamp_min(_SMALLEST))


def forward_in_pieces(call: Callable[[Tensor], Tensor], inputs: Tensor, size: int | None) -> Tensor:
    """Return the result of `call` for a batch of any size, where `call` accepts only batches of `size` (None: any)."""
    if size is None or inputs.shape[0] == size:
        return call(inputs)
    return torch.cat([call(piece) for piece in _pieces(inputs, size)])[: inputs.shape[0]]


def observe_in_pieces(call: Callable[[Tensor], Outputs], inputs: Tensor, size: int | None) -> Outputs:
    """Return the `Outputs` of `call` for a batch of any size, like `forward_in_pieces`.

    Each output has the rows of the whole batch, so its statistics are exact.
    """
    if size is None or inputs.shape[0] == size:
        return call(inputs)
    pieces = [call(piece) for piece in _pieces(inputs, size)]
    batch = inputs.shape[0]

    def join(tensors: tuple[Tensor, ...]) -> Tensor:
        # A layer can receive several rows per image, such as windows.
        rows_per_image = tensors[0].shape[0] // size
        return torch.cat(tensors)[: batch * rows_per_image]

    embeddings = [piece.embedding for piece in pieces if piece.embedding is not None]
    return Outputs(
        logits=join(tuple(piece.logits for piece in pieces)),
        norm_inputs=tuple(map(join, zip(*(piece.norm_inputs for piece in pieces), strict=True))),
        embedding=join(tuple(embeddings)) if embeddings else None,
        stages=tuple(map(join, zip(*(piece.stages for piece in pieces), strict=True))),
    )


def _pieces(inputs: Tensor, size: int) -> tuple[Tensor, ...]:
    """Split into batches of exactly `size`; the last one is padded with images of this batch."""
    padding = -inputs.shape[0] % size
    indices = torch.arange(padding, device=inputs.device) % inputs.shape[0]
    return torch.cat([inputs, inputs[indices]]).split(size)
