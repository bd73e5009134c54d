"""Synthetic images held in memory with the class of each."""

import torch
from torch import Tensor


class ImageStore:
    """At most `capacity` images as uint8 on one device; the oldest make room. Nothing here waits for the host.

    Fields, one entry per stored image: `images` uint8 [N, C, H, W]; `classes` int64 [N].
    """

    FIELDS: tuple[str, ...] = ("images", "classes")

    def __init__(self, capacity: int, size: tuple[int, int, int], num_classes: int, device: torch.device):
        self.capacity = capacity
        self.num_classes = num_classes
        self.count = 0
        self.added = 0
        self.images = torch.zeros(capacity, *size, dtype=torch.uint8, device=device)
        self.classes = torch.zeros(capacity, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return self.count

    def class_shares(self) -> Tensor:
        """Share of the stored images in each class, [K], summing to 1; zeros while empty."""
        counts = torch.zeros(self.num_classes, dtype=torch.int64, device=self.classes.device)
        filled = self.classes[: self.count]
        return counts.index_add_(0, filled, torch.ones_like(filled)) / max(self.count, 1)

    def append(self, images: Tensor, classes: Tensor) -> None:
        """Stores a batch of images [B, C, H, W] in [0, 1] with their classes [B], over the oldest once full."""
        images, classes = images[-self.capacity :], classes[-self.capacity :]
        self.write(self.oldest(len(images)), images, classes)

    def oldest(self, batch: int) -> Tensor:
        """The next `batch` free places, then those of the images that came in first: [batch]."""
        return (torch.arange(batch, device=self.classes.device) + self.added) % self.capacity

    def write(self, slots: Tensor, images: Tensor, classes: Tensor) -> None:
        """Puts images [B, C, H, W] in [0, 1] into these places [B]."""
        self.images[slots] = (images * 255.0).round().to(torch.uint8)
        self.classes[slots] = classes
        self.count = min(self.capacity, self.count + len(slots))
        self.added += len(slots)

    def draw_uniformly(self, batch_size: int, rng: torch.Generator) -> Tensor:
        """Indices [batch_size] of stored images, with replacement, each equally likely."""
        return torch.randint(self.count, (batch_size,), generator=rng, device=self.classes.device)

    def read(self, index: Tensor) -> Tensor:
        """The images at these places as floats in [0, 1]."""
        return self.images[index].float() / 255.0

    def spread(self, count: int) -> Tensor:
        """At most `count` images, evenly over the store, as floats in [0, 1]."""
        places = torch.linspace(0, self.count - 1, min(count, self.count), device=self.images.device)
        return self.read(places.long())

    def state_dict(self) -> dict[str, Tensor | int]:
        """Everything needed to continue bit by bit; of places that nothing was put into, nothing."""
        state: dict[str, Tensor | int] = {name: self._filled(getattr(self, name)) for name in self.FIELDS}
        return state | {"count": self.count, "added": self.added}

    def _filled(self, field: Tensor) -> Tensor:
        # A view would be saved with all that it is a view of.
        return field if self.count == self.capacity else field[: self.count].clone()

    def load_state_dict(self, state: dict) -> None:
        """Takes over what `state_dict` returned, for a store of the same capacity and image size."""
        for name in self.FIELDS:
            getattr(self, name)[: state["count"]] = state[name]
        self.count, self.added = state["count"], state["added"]
