"""What a forward passes by: which of its tensors are the embedding and the stage features, decided in one place."""

from typing import NamedTuple

from torch import Tensor


class Seen(NamedTuple):
    """A tensor and where in the graph it was made; eager networks have no such place and leave it 0."""

    tensor: Tensor
    site: int


class Trail:
    """Collects the operations of one forward, in the order of execution, for eager code and for archives alike."""

    def __init__(self, batch: int):
        self._batch = batch
        self._classifier_inputs: dict[int, Seen] = {}  # by number of outputs
        self._maps: dict[tuple[int, int], Seen] = {}
        self._resolutions: set[tuple[int, int]] = set()
        self._products: set[tuple[int, ...]] = set()  # shapes of attention weights and of channels-last activations

    def saw(self, kind: str, source: Tensor | None, result: Tensor, site: int = 0) -> None:
        """Notes one operation: `kind` is "linear", "conv" or anything else, `source` what the first two multiply."""
        if source is not None and kind == "linear" and result.ndim == 2 and source.ndim == 2:
            self._classifier_inputs[result.shape[1]] = Seen(source, site)
        if result.ndim != 4 or result.shape[0] != self._batch:
            return
        shape = tuple(result.shape[1:])
        if kind == "linear":
            self._products.add(shape)
        if kind != "conv" and shape in self._products:
            return  # also the softmax that follows
        height, width = shape[1:]
        if kind == "conv":
            self._resolutions.add((height, width))
            if source is not None:
                self._classifier_inputs[result.shape[1]] = Seen(source, site)
        self._maps[height, width] = Seen(result, site)

    def classifier_input(self, num_classes: int) -> Seen | None:
        """What the last linear layer or convolution with `num_classes` outputs received; None without one."""
        return self._classifier_inputs.get(num_classes)

    def stages(self) -> list[Seen]:
        """The last feature map [B, C, H, W] of each resolution, large to small, without 1x1.

        Only what a convolution made counts as a resolution, and no product of matrices as a map: attention weights and
        channels-last activations are four-dimensional as well, and can have the height and width of a map.
        """
        resolutions = [size for size in self._maps if size in self._resolutions and size != (1, 1)]
        return [self._maps[size] for size in sorted(resolutions, key=lambda size: -size[0] * size[1])]


def as_embedding(classifier_input: Tensor) -> Tensor:
    """[B, D] of what a classifier receives; a 1x1 convolution's input [B, D, H, W] is averaged over its pixels."""
    return classifier_input if classifier_input.ndim == 2 else classifier_input.mean((2, 3))
