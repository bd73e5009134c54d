"""Records the inputs of chosen layers during a forward."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor, nn

Result = TypeVar("Result")


class Taps:
    """Records the inputs of the same layers in any number of networks, inside `watched` functions only."""

    def __init__(self, names: Sequence[str] = ()):
        self.names = tuple(names)
        self.recorded: list[Tensor] = []
        self.recording = False

    def attach(self, module: nn.Module) -> None:
        """Make the layers of this network available to `watched`."""
        layers = dict(module.named_modules())
        for name in self.names:
            layers[name].register_forward_pre_hook(self._record)

    def _record(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.recording:
            self.recorded.append(inputs[0])

    def forget(self) -> None:
        """Drop what a forward that failed has recorded, and with it the memory of that forward."""
        self.recording = False
        self.recorded.clear()

    def watched(self, function: Callable[[Tensor], Result]) -> Callable[[Tensor], tuple[Result, tuple[Tensor, ...]]]:
        """Return the function with the recorded inputs [B, ...] as a second result."""

        def watched(images: Tensor) -> tuple[Result, tuple[Tensor, ...]]:
            self.recorded.clear()
            self.recording = True
            result = function(images)
            self.recording = False
            inputs = tuple(self.recorded)
            self.recorded.clear()
            return result, inputs

        return watched
