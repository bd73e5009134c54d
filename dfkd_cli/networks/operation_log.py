"""Choice of the embedding and the stage features among the tensors of one forward."""

from typing import NamedTuple

from torch import Tensor


class LoggedTensor(NamedTuple):
    """A tensor and its position in the graph; always 0 for eager networks, which have no graph."""

    tensor: Tensor
    site: int


class OperationLog:
    """The operations of one forward, in the order of execution, of eager code and of archives alike."""

    def __init__(self, batch: int):
        self._batch = batch
        self._classifier_inputs: dict[int, LoggedTensor] = {}  # by number of outputs
        self._maps: dict[tuple[int, int], LoggedTensor] = {}
        self._resolutions: set[tuple[int, int]] = set()
        self._products: set[tuple[int, ...]] = set()  # shapes of attention weights and of channels-last activations

    def add(self, kind: str, source: Tensor | None, result: Tensor, site: int = 0) -> None:
        """Record one operation: `kind` is "linear", "conv" or anything else; the first two multiply `source`."""
        if source is not None and kind == "linear" and result.ndim == 2 and source.ndim == 2:
            self._classifier_inputs[result.shape[1]] = LoggedTensor(source, site)
        if result.ndim != 4 or result.shape[0] != self._batch:
            return
        shape = tuple(result.shape[1:])
        if kind == "linear":
            self._products.add(shape)
        if kind != "conv" and shape in self._products:
            return  # the product itself, or the softmax after it
        height, width = shape[1:]
        if kind == "conv":
            self._resolutions.add((height, width))
            if source is not None:
                self._classifier_inputs[result.shape[1]] = LoggedTensor(source, site)
        self._maps[height, width] = LoggedTensor(result, site)

    def classifier_input(self, logits: Tensor) -> LoggedTensor | None:
        """Return the input of the last linear layer or convolution with as many outputs as the logits [B, K].

        None without such a layer, and for logits [B, K, H, W], which have no single input per image.
        """
        return self._classifier_inputs.get(logits.shape[1]) if logits.ndim == 2 else None

    def stages(self) -> list[LoggedTensor]:
        """Return the last feature map [B, C, H, W] of each resolution, large to small, without 1x1.

        Only results of convolutions define a resolution, and matrix products are never maps: attention weights and
        channels-last activations are four-dimensional as well, and can have the height and width of a map.
        """
        resolutions = [size for size in self._maps if size in self._resolutions and size != (1, 1)]
        return [self._maps[size] for size in sorted(resolutions, key=lambda size: -size[0] * size[1])]


def as_embedding(classifier_input: Tensor) -> Tensor:
    """Return a classifier's input as [B, D]; that of a 1x1 convolution, [B, D, H, W], is averaged over its pixels."""
    return classifier_input if classifier_input.ndim == 2 else classifier_input.mean((2, 3))
