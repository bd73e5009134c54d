"""A replay buffer for segmentation networks: class shares come from a histogram of pixels.

How the parts of SSD-KD become dense is our reading; arXiv:2406.07876 reports a result for segmentation only.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from dfkd_cli.networks.pixels import per_image
from dfkd_cli.networks.tasks import SEGMENTATION
from dfkd_cli.synthesis.buffer import ReplayBuffer
from dfkd_cli.synthesis.generator_loss import Generated
from dfkd_cli.training.setting import Terms

Rarity = Literal["complement", "logarithm"]
_SMALLEST = 1.02  # of the logarithm's argument, in ENet (arXiv:1606.02147, sec. 5.2)


class DenseReplayBuffer(ReplayBuffer):
    """A replay buffer whose images have one class per pixel.

    Further field: `shares` [N, K], the share of each class among the pixels that the teacher predicts. `classes` are
    the most frequent classes of the images, `confidence` is the mean over the pixels.
    """

    FIELDS = (*ReplayBuffer.FIELDS, "shares")

    def __init__(self, *arguments: Any, rarity: Rarity, **options: Any):
        super().__init__(*arguments, **options)
        self.rarity: Rarity = rarity
        self.shares = torch.zeros(self.capacity, self.num_classes, device=self.classes.device)

    def class_shares(self) -> Tensor:
        """Return the share of each class among the pixels of all processes' images, [K]; zeros while empty."""
        return self.world.sum(self.shares[: self.count].sum(dim=0)) / max(self.count * self.world.size, 1)

    def rarities(self) -> Tensor:
        """Return the rarity of each class in [0, 1]: [K], 1 for a class that no pixel has.

        "complement" is 1 - share; "logarithm" is log(1.02) / log(1.02 + share), the weight of ENet in units of its
        largest value. It tells road from pole where 1 - share does not.
        """
        shares = self.class_shares()
        return 1.0 - shares if self.rarity == "complement" else math.log(_SMALLEST) / (_SMALLEST + shares).log()

    def add(self, generated: Generated) -> Terms:
        """Store a generated batch as `ReplayBuffer.add` does; return the class shares."""
        confidence, classes = generated.teacher_logits.float().softmax(dim=1).max(dim=1)
        shares = SEGMENTATION.class_shares(classes, self.num_classes)
        places = self.put(generated.images, shares.argmax(dim=1), per_image(confidence))
        self.shares[places] = shares[-self.capacity :]
        return {"buffer/class_shares": self.class_shares()}

    def worth(self) -> Tensor:
        """Return phi of the stored images: [N] in [0, 1], from their class shares and mean confidences."""
        return (self.shares @ self.rarities()) * (1.0 - self.confidence)
