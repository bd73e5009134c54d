"""What the generative methods share whose student learns from images that are kept."""

from typing import Any

from torch import Tensor

from dfkd_cli.methods.generative import GenerativeMethod, GenerativeOptions
from dfkd_cli.synthesis.store import ImageStore
from dfkd_cli.training.method import Batch, Counts
from dfkd_cli.training.setting import Setting


class StoringMethod(GenerativeMethod):
    """A generative method whose student learns from a store of generated images."""

    def __init__(self, setting: Setting, options: GenerativeOptions, store: ImageStore, on_class_only: bool = False):
        super().__init__(setting, options, on_class_only=on_class_only)
        self.store = store

    def sample(self) -> Batch:
        """Augmented images from the store with their labels, each equally likely."""
        index = self.store.draw_uniformly(self.setting.batch_size, self.setting.rng)
        return Batch(self.setting.augment(self.store.read(index)), self.store.classes[index], index)

    def shown_images(self, count: int) -> Tensor:
        """Images spread evenly over the store."""
        return self.store.spread(count)

    def counts(self) -> Counts:
        """All images the generator made, those of its training included, and what the store holds."""
        return Counts(generated=self.synthesizer.generated, kept=len(self.store))

    def untouched_bytes(self) -> int:
        """Of the store, what holds no image yet."""
        return self.store.images[len(self.store) :].nbytes

    def state_dict(self) -> dict[str, Any]:
        """The generator, the number of rounds and the store."""
        return super().state_dict() | {"store": self.store.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        super().load_state_dict(state)
        self.store.load_state_dict(state["store"])
