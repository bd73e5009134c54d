"""A small store of synthetic images with a priority for each."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.synthesis.generator_loss import Generated
from dfkd_cli.synthesis.store import ImageStore, StoreConfig
from dfkd_cli.training.method import Batch
from dfkd_cli.training.setting import Terms

Eviction = Literal["oldest", "easiest", "mastered"]
PRIORITY_FLOOR = 1e-6  # keeps an image without discrepancy drawable (arXiv:1511.05952, sec. 3.3)
SMALLEST_DOUBT = 1e-7  # of 1 - confidence; single precision tells 1 from 6e-8 less
NOT_DRAWN = -1.0  # discrepancy of an image that no step has drawn yet


@dataclass(frozen=True)
class BufferConfig(StoreConfig):
    """The size of a replay buffer, and which images make room for new ones."""

    eviction: Eviction


class ReplayBuffer(ImageStore):
    """A store with a priority per image.

    Further fields: `confidence` in [0, 1], the teacher's largest probability; `discrepancy` >= 0, the delta of priority
    sampling, or NOT_DRAWN; `weights` > 0, the importance weight of the last draw.
    `classes` are the teacher's predictions.

    `alpha` is the exponent of the priorities, 0 for uniform draws; `beta` that of the importance weights, 0 for none.
    `smoothing` in [0, 1) is the share of an image's earlier discrepancy that stays when the image is drawn again.
    """

    FIELDS = (*ImageStore.FIELDS, "confidence", "discrepancy", "weights")

    def __init__(
        self,
        config: BufferConfig,
        spec: InputSpec,
        device: torch.device,
        *,
        alpha: float,
        beta: float,
        smoothing: float,
        world: World = ALONE,
    ):
        super().__init__(config.capacity(spec), spec, device, world)
        self.eviction: Eviction = config.eviction
        self.alpha, self.beta, self.smoothing = alpha, beta, smoothing
        self.confidence = torch.zeros(self.capacity, device=device)
        self.discrepancy = torch.zeros(self.capacity, device=device)
        self.weights = torch.ones(self.capacity, device=device)

    def rarities(self) -> Tensor:
        """Return the rarity of each class in the buffer, [K] in [0, 1]: 1 for a class that no image has."""
        return 1.0 - self.class_shares()

    def modulation(
        self, classes: Tensor, confidence: Tensor, gamma: float, diversity: bool, difficulty: bool
    ) -> Tensor:
        """Return phi of answers of these classes and confidences, each of any shape -> the same shape in [0, 1].

        (1 - share of the class in the buffer) * (1 - confidence)^gamma, each factor only when it is switched on
        (arXiv:2406.07876, modulating function). Differentiable in the confidence; the shares are constants.
        """
        rarity = self.rarities()[classes] if diversity else torch.ones_like(confidence)
        # Bounded, because the gradient of a root is infinite at 0.
        return rarity * (1.0 - confidence).clamp_min(SMALLEST_DOUBT).pow(gamma) if difficulty else rarity

    def add(self, generated: Generated) -> Terms:
        """Store a generated batch, once full over the images that the eviction rule selects.

        "oldest" replaces in order of arrival; "easiest" replaces the lowest phi: confident images of crowded classes;
        "mastered" replaces the lowest discrepancy. Return the class shares.
        """
        confidence, classes = generated.teacher_logits.float().softmax(dim=1).max(dim=1)
        self.put(generated.images, classes, confidence)
        return {"buffer/class_shares": self.class_shares()}

    def put(self, images: Tensor, classes: Tensor, confidence: Tensor) -> Tensor:
        """Store images [B, C, H, W] in [0, 1] with the values [B] of their fields; return their places."""
        images, classes, confidence = images[-self.capacity :], classes[-self.capacity :], confidence[-self.capacity :]
        slots = self._slots(len(images))
        self.confidence[slots] = confidence.float()
        self.discrepancy[slots] = NOT_DRAWN
        self.weights[slots] = 1.0
        self.write(slots, images, classes)
        return slots

    def _slots(self, batch: int) -> Tensor:
        if self.count < self.capacity or self.eviction == "oldest":
            return self.oldest(batch)
        worth = self.known_discrepancy() if self.eviction == "mastered" else self.worth()
        return worth.topk(batch, largest=False).indices

    def worth(self) -> Tensor:
        """Return phi of the stored images: [N] in [0, 1]."""
        return self.modulation(self.classes, self.confidence, 1.0, diversity=True, difficulty=True)

    def known_discrepancy(self) -> Tensor:
        """Return the discrepancy of each stored image, [count]; images not drawn yet have the mean of the others.

        The discrepancy at the time of storing would be no measure: during the warm-up the student has not learned, and
        a student that begins as the teacher differs from it nowhere.
        """
        values = self.discrepancy[: self.count]
        drawn = values >= 0.0
        mean = (values * drawn).sum() / drawn.sum().clamp_min(1)
        return torch.where(drawn, values, mean)

    def probabilities(self) -> Tensor:
        """Return the probability of each stored image to be drawn, [count], summing to 1.

        The proportional variant of arXiv:1511.05952, eq. 1.
        """
        priorities = (self.known_discrepancy() + PRIORITY_FLOOR).pow(self.alpha)
        return priorities / priorities.sum()

    def sample(self, count: int, rng: torch.Generator) -> Batch:
        """Return `count` stored images, with replacement, by their probabilities."""
        index = torch.multinomial(self.probabilities(), count, replacement=True, generator=rng)
        return Batch(self.read(index), index=index)

    def update(self, index: Tensor, kl: Tensor) -> None:
        """Set delta = previous weight * KL and weight = (N P)^-beta of the images of the last step.

        Places [B] and KL [B] at temperature 1 in nats (arXiv:2406.07876, priority sampling function). The KL is that of
        one augmented view, so delta is averaged over the views of an image: exponentially, with `smoothing`.
        """
        latest = _drawable(self.weights[index] * kl)
        earlier = self.discrepancy[index]
        mean = self.smoothing * earlier + (1.0 - self.smoothing) * latest
        self.discrepancy[index] = torch.where(earlier >= 0.0, mean, latest)
        self.weights[index] = (self.count * self.probabilities()[index]).pow(-self.beta)


def _drawable(discrepancy: Tensor) -> Tensor:
    """Return finite values: the loop reports a loss that is not finite, whereas drawing would crash."""
    return discrepancy.float().nan_to_num(0.0, posinf=0.0)
