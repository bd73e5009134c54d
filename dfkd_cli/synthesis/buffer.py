"""The small store of synthetic images a student learns from, with a priority for each."""

from typing import Literal

import torch
from torch import Tensor

from dfkd_cli.synthesis.store import ImageStore

Eviction = Literal["oldest", "easiest", "mastered"]
PRIORITY_FLOOR = 1e-6  # keeps an image that the student has mastered drawable (arXiv:1511.05952, sec. 3.3)


class ReplayBuffer(ImageStore):
    """A store that also knows of each image what is left to learn from it.

    Further fields: `confidence` in [0, 1], the teacher's largest probability; `discrepancy` >= 0, the delta of priority
    sampling; `weights` > 0, the importance weight of the last draw; `births` int64, when it came in. `classes` are the
    teacher's predictions.
    """

    FIELDS = (*ImageStore.FIELDS, "confidence", "discrepancy", "weights", "births")

    def __init__(self, capacity: int, size: tuple[int, int, int], num_classes: int, device: torch.device):
        super().__init__(capacity, size, num_classes, device)
        self.confidence = torch.zeros(capacity, device=device)
        self.discrepancy = torch.zeros(capacity, device=device)
        self.weights = torch.ones(capacity, device=device)
        self.births = torch.zeros(capacity, dtype=torch.int64, device=device)

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
        slots = self._slots(len(images), eviction)
        self.confidence[slots] = confidence.float()
        self.discrepancy[slots] = _drawable(discrepancy)
        self.weights[slots] = 1.0
        self.births[slots] = self.added
        self.write(slots, images, classes)

    def _slots(self, batch: int, eviction: Eviction) -> Tensor:
        if self.count < self.capacity or eviction == "oldest":
            return self.oldest(batch)
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

    def update(self, index: Tensor, kl: Tensor, alpha: float, beta: float) -> None:
        """Renews delta = previous weight * KL and weight = (N P)^-beta of the images just learned from.

        [B], [B] of KL at temperature 1 in nats (arXiv:2406.07876, priority sampling function).
        """
        self.discrepancy[index] = _drawable(self.weights[index] * kl)
        self.weights[index] = (self.count * self.probabilities(alpha)[index]).pow(-beta)


def _drawable(discrepancy: Tensor) -> Tensor:
    """What is not finite counts as nothing: the loop ends such a run in words, the drawing would crash."""
    return discrepancy.float().nan_to_num(0.0, posinf=0.0)
