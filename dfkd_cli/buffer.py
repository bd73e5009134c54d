"""The small store of synthetic images a student learns from, with a priority for each."""

from typing import Literal

import torch
from torch import Tensor

Eviction = Literal["oldest", "easiest", "mastered"]
PRIORITY_FLOOR = 1e-6  # keeps an image that the student has mastered drawable (arXiv:1511.05952, sec. 3.3)


class ReplayBuffer:
    """At most `capacity` images as uint8 on one device, each with what is known of it. Nothing here waits for the host.

    Fields, one entry per stored image: `images` uint8 [N, C, H, W]; `classes` int64, the teacher's prediction;
    `confidence` in [0, 1], the teacher's largest probability; `discrepancy` >= 0, the delta of priority sampling;
    `weights` > 0, the importance weight of the last draw; `births` int64, when it came in.
    """

    FIELDS = ("images", "classes", "confidence", "discrepancy", "weights", "births")

    def __init__(self, capacity: int, size: tuple[int, int, int], num_classes: int, device: torch.device):
        self.capacity = capacity
        self.num_classes = num_classes
        self.count = 0
        self.added = 0
        self.images = torch.zeros(capacity, *size, dtype=torch.uint8, device=device)
        self.classes = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.confidence = torch.zeros(capacity, device=device)
        self.discrepancy = torch.zeros(capacity, device=device)
        self.weights = torch.ones(capacity, device=device)
        self.births = torch.zeros(capacity, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return self.count

    def class_shares(self) -> Tensor:
        """Share of the stored images in each class, [K], summing to 1; zeros while empty."""
        counts = torch.zeros(self.num_classes, dtype=torch.int64, device=self.classes.device)
        filled = self.classes[: self.count]
        return counts.index_add_(0, filled, torch.ones_like(filled)) / max(self.count, 1)

    def modulation(
        self, classes: Tensor, confidence: Tensor, gamma: float, diversity: bool, difficulty: bool
    ) -> Tensor:
        """phi of samples of these predicted classes and confidences: [B], [B] -> [B] in [0, 1].

        (1 - share of the class in the buffer) * (1 - confidence)^gamma, each factor only when asked for
        (arXiv:2406.07876, modulating function). Differentiable in the confidence; the shares are constants.
        """
        rarity = 1.0 - self.class_shares()[classes] if diversity else torch.ones_like(confidence)
        return rarity * (1.0 - confidence).pow(gamma) if difficulty else rarity

    def add(self, images: Tensor, classes: Tensor, confidence: Tensor, discrepancy: Tensor, eviction: Eviction) -> None:
        """Stores a batch of images in [0, 1], over the entries that `eviction` names once the buffer is full.

        "oldest" goes first in, first out; "easiest" drops the most confident and most crowded (lowest phi);
        "mastered" drops the lowest discrepancy.
        """
        images, classes = images[-self.capacity :], classes[-self.capacity :]
        confidence, discrepancy = confidence[-self.capacity :], discrepancy[-self.capacity :]
        batch = len(images)
        slots = self._slots(batch, eviction)
        self.images[slots] = (images * 255.0).round().to(torch.uint8)
        self.classes[slots] = classes
        self.confidence[slots] = confidence.float()
        self.discrepancy[slots] = _drawable(discrepancy)
        self.weights[slots] = 1.0
        self.births[slots] = self.added
        self.count = min(self.capacity, self.count + batch)
        self.added += batch

    def _slots(self, batch: int, eviction: Eviction) -> Tensor:
        device = self.classes.device
        if self.count < self.capacity or eviction == "oldest":
            return (torch.arange(batch, device=device) + self.added) % self.capacity
        if eviction == "mastered":
            worth = self.discrepancy
        else:
            worth = self.modulation(self.classes, self.confidence, 1.0, diversity=True, difficulty=True)
        return worth.topk(batch, largest=False).indices

    def probabilities(self, alpha: float) -> Tensor:
        """Chance of each stored image to be drawn, [count], summing to 1; uniform at alpha 0.

        The proportional variant of arXiv:1511.05952, eq. 1.
        """
        priorities = (self.discrepancy[: self.count].abs() + PRIORITY_FLOOR).pow(alpha)
        return priorities / priorities.sum()

    def draw(self, batch_size: int, alpha: float, rng: torch.Generator) -> Tensor:
        """Indices [batch_size] of stored images, with replacement, by their probabilities."""
        return torch.multinomial(self.probabilities(alpha), batch_size, replacement=True, generator=rng)

    def read(self, index: Tensor) -> Tensor:
        """The images at these places as floats in [0, 1]."""
        return self.images[index].float() / 255.0

    def update(self, index: Tensor, kl: Tensor, alpha: float, beta: float) -> None:
        """Renews delta = previous weight * KL and weight = (N P)^-beta of the images just learned from.

        [B], [B] of KL at temperature 1 in nats (arXiv:2406.07876, priority sampling function).
        """
        self.discrepancy[index] = _drawable(self.weights[index] * kl)
        self.weights[index] = (self.count * self.probabilities(alpha)[index]).pow(-beta)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Everything needed to continue bit by bit."""
        state: dict[str, Tensor | int] = {name: getattr(self, name) for name in self.FIELDS}
        return state | {"count": self.count, "added": self.added}

    def load_state_dict(self, state: dict) -> None:
        """Takes over what `state_dict` returned, for a buffer of the same capacity and image size."""
        for name in self.FIELDS:
            getattr(self, name).copy_(state[name])
        self.count, self.added = state["count"], state["added"]


def _drawable(discrepancy: Tensor) -> Tensor:
    """What is not finite counts as nothing: the loop ends such a run in words, the drawing would crash."""
    return discrepancy.float().nan_to_num(0.0, posinf=0.0)
