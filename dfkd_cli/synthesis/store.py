"""A memory of fixed size that keeps synthetic images and their classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfkd_cli.config.values import require
from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.synthesis.generator_loss import Generated
from dfkd_cli.synthesis.memory import Memory
from dfkd_cli.training.method import Batch
from dfkd_cli.training.setting import Terms

LARGE_BYTES = 100_000_000  # from which on a store states its size


@dataclass(frozen=True)
class StoreConfig:
    """How many images a store keeps."""

    size: int  # images of all processes together
    mb: int  # largest memory for them, in MiB

    def __post_init__(self) -> None:
        require(self, 1, "size", "mb")

    def capacity(self, spec: InputSpec) -> int:
        """Return the images of this size that are kept, at least 1."""
        return min(self.size, max(1, self.mb * 2**20 // math.prod(spec.size)))

    def notes(self, spec: InputSpec) -> list[str]:
        """Return a sentence about the memory when it is large or too small for all images."""
        kept, bytes_each = self.capacity(spec), math.prod(spec.size)
        if kept == self.size and kept * bytes_each < LARGE_BYTES:
            return []
        limit = "" if kept == self.size else f" of {self.size:,}, as many as fit into {self.mb:,} MiB (its option mb)"
        shape = "x".join(map(str, spec.size))
        return [f"{kept:,} images of {shape}{limit} are kept in {kept * bytes_each / 1e6:,.0f} MB."]


class ImageStore(Memory):
    """At most `capacity` images as uint8 on one device; new ones replace the oldest. Nothing waits for the host.

    Each process of `world` keeps its share of the images.
    Fields, one entry per stored image: `images` uint8 [N, C, H, W]; `classes` int64 [N].
    """

    FIELDS: tuple[str, ...] = ("images", "classes")

    def __init__(self, capacity: int, spec: InputSpec, device: torch.device, world: World = ALONE):
        self.capacity = capacity = world.share_of_memory(capacity)
        self.world = world
        self.num_classes = spec.num_classes
        self.count = 0
        self.added = 0
        self.images = torch.zeros(capacity, *spec.size, dtype=torch.uint8, device=device)
        self.classes = torch.zeros(capacity, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return self.count

    def reserved_bytes(self) -> int:
        """Return the bytes of the places that hold no image yet."""
        return self.images[self.count :].nbytes

    def class_shares(self) -> Tensor:
        """Return the share of all processes' images in each class, [K], summing to 1; zeros while empty."""
        counts = torch.zeros(self.num_classes, dtype=torch.int64, device=self.classes.device)
        filled = self.classes[: self.count]
        counts = self.world.sum(counts.index_add_(0, filled, torch.ones_like(filled)))
        return counts / max(self.count * self.world.size, 1)

    def add(self, generated: Generated) -> Terms:
        """Store a generated batch with its labels, over the oldest images once full."""
        images, classes = generated.images[-self.capacity :], generated.labels[-self.capacity :]
        self.write(self.oldest(len(images)), images, classes)
        return {}

    def oldest(self, batch: int) -> Tensor:
        """Return the next `batch` free places, then those of the oldest images: [batch]."""
        return (torch.arange(batch, device=self.classes.device) + self.added) % self.capacity

    def write(self, slots: Tensor, images: Tensor, classes: Tensor) -> None:
        """Store images [B, C, H, W] in [0, 1] and their classes [B] at these places [B]."""
        self.images[slots] = (images * 255.0).round().to(torch.uint8)
        self.classes[slots] = classes
        self.count = min(self.capacity, self.count + len(slots))
        self.added += len(slots)

    def sample(self, count: int, rng: torch.Generator) -> Batch:
        """Return `count` stored images with their labels, uniformly with replacement."""
        index = torch.randint(self.count, (count,), generator=rng, device=self.classes.device)
        return Batch(self.read(index), self.classes[index], index)

    def read(self, index: Tensor) -> Tensor:
        """Return the images at these places as floats in [0, 1]."""
        return self.images[index].float() / 255.0

    def spread(self, count: int) -> Tensor:
        """Return at most `count` images, evenly over the store, as floats in [0, 1]."""
        places = torch.linspace(0, self.count - 1, min(count, self.count), device=self.images.device)
        return self.read(places.long())

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return the filled slots of every field."""
        state: dict[str, Tensor | int] = {name: self._filled(getattr(self, name)) for name in self.FIELDS}
        return state | {"count": self.count, "added": self.added}

    def _filled(self, field: Tensor) -> Tensor:
        # Saving a view would save the whole tensor behind it.
        return field if self.count == self.capacity else field[: self.count].clone()

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned, for a store of the same capacity and image size."""
        for name in self.FIELDS:
            getattr(self, name)[: state["count"]] = state[name]
        self.count, self.added = state["count"], state["added"]

    def reshared(self, states: Sequence[dict[str, Any]], world: World) -> dict[str, Any]:
        """Return every n-th image of all processes for the n processes of now.

        They are in the order of their arrival, if new images replace the oldest.
        """
        fields = {name: torch.stack([state[name] for state in states], dim=1).flatten(0, 1) for name in self.FIELDS}
        # A full store begins anywhere in the order of arrival.
        oldest = states[0]["added"] % states[0]["count"] * len(states) if states[0]["count"] else 0
        mine = {
            name: values.roll(-oldest, 0)[world.rank :: world.size][-self.capacity :] for name, values in fields.items()
        }
        count = len(mine["images"])
        return mine | {"count": count, "added": count}
