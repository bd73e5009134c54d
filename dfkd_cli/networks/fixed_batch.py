"""Archives that were recorded at one batch size: found out by trying, then fed in pieces of that size."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dfkd_cli.errors import DfkdError, TeacherError
from dfkd_cli.networks.base import Outputs

TOLERANCE = 1e-2  # of the largest logit: two answers to the same images differ by less, unless by chance
_SMALLEST = 1e-30  # an untrained last layer may give nothing but zeros
_TIMES_RANDOM = 3.0  # two answers to the same images rarely differ by so many times what two others do
# Below this the per-channel variance of a batch is too noisy to steer synthesis by.
SMALLEST_USEFUL_BATCH = 8

HOW_TO_EXPORT = """export it for any batch size with
  program = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
  torch.export.save(program, "teacher.pt2")
where x holds at least 2 images; with torch.jit.trace, write x.flatten(1) in the model, not x.view(batch, -1)"""


def find_batch_size(
    call: Callable[[Tensor], Tensor], make_images: Callable[[int], Tensor], candidates: Iterable[int]
) -> int | None:
    """The only batch size at which `call` gives one independent row per image; None when any will do.

    `candidates` are sizes to try when others fail. Raises TeacherError when no size works, or one of less than 8.
    """
    failure = _failure(call, make_images(5)) or _failure(call, make_images(3))
    if failure is None:
        return None
    for size in sorted(size for size in set(candidates) if size > 0):
        if _failure(call, make_images(size)) is None:
            if size < SMALLEST_USEFUL_BATCH:
                raise TeacherError(
                    f"the network works at batch size {size} only, too few images for batch statistics: {HOW_TO_EXPORT}"
                )
            return size
    if isinstance(failure, DfkdError):
        raise failure
    shape = "x".join(str(length) for length in make_images(1).shape[1:])
    raise TeacherError(f"the network fails on noise of {shape}: {failure}; give its true size with --input-size CxHxW")


@torch.no_grad()
def _failure(call: Callable[[Tensor], Tensor], images: Tensor) -> str | DfkdError | None:
    """Why `call` does not work on this batch; None when it does."""
    try:
        logits = call(images)
    except DfkdError as error:
        return error
    except Exception as error:  # a stranger's network can raise anything
        return last_line(error)
    if logits.ndim == 0 or logits.shape[0] != images.shape[0]:
        return f"{images.shape[0]} images give outputs of shape {list(logits.shape)}"
    if not torch.isfinite(logits).all():
        return None  # damaged weights say nothing about the batch size
    by_order = largest_difference(call(images.flip(0)).flip(0), logits)
    if by_order > TOLERANCE and by_order > _TIMES_RANDOM * largest_difference(call(images), logits):
        return f"its outputs for {images.shape[0]} images do not follow the order of the images"
    return None


def largest_difference(logits: Tensor, reference: Tensor) -> float:
    """Between two answers, as a share of the reference's largest logit."""
    return float((logits - reference).abs().max() / reference.abs().max().clamp_min(_SMALLEST))


def last_line(error: Exception) -> str:
    """The line of an error that says what happened: TorchScript puts its own traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


def forward_in_pieces(call: Callable[[Tensor], Tensor], inputs: Tensor, size: int | None) -> Tensor:
    """`call` on a batch of any size; `size` is what it is limited to, None when it is not."""
    if size is None or inputs.shape[0] == size:
        return call(inputs)
    return torch.cat([call(piece) for piece in _pieces(inputs, size)])[: inputs.shape[0]]


def observe_in_pieces(call: Callable[[Tensor], Outputs], inputs: Tensor, size: int | None) -> Outputs:
    """As `forward_in_pieces`; every output holds the rows of the whole batch, so that its statistics are exact."""
    if size is None or inputs.shape[0] == size:
        return call(inputs)
    parts = [call(piece) for piece in _pieces(inputs, size)]
    batch = inputs.shape[0]

    def join(tensors: tuple[Tensor, ...]) -> Tensor:
        # A layer may see several rows per image, such as windows.
        rows_per_image = tensors[0].shape[0] // size
        return torch.cat(tensors)[: batch * rows_per_image]

    embeddings = [part.embedding for part in parts if part.embedding is not None]
    return Outputs(
        logits=join(tuple(part.logits for part in parts)),
        norm_inputs=tuple(map(join, zip(*(part.norm_inputs for part in parts), strict=True))),
        embedding=join(tuple(embeddings)) if embeddings else None,
        stages=tuple(map(join, zip(*(part.stages for part in parts), strict=True))),
    )


def _pieces(inputs: Tensor, size: int) -> tuple[Tensor, ...]:
    """Batches of exactly `size`; the last is filled up with images of this batch."""
    missing = -inputs.shape[0] % size
    filler = torch.arange(missing, device=inputs.device) % inputs.shape[0]
    return torch.cat([inputs, inputs[filler]]).split(size)
