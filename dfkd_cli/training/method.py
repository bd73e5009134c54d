"""What every method offers to the loop, and all that a method may know of the world."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.training.setting import Setting, Terms


class Batch(NamedTuple):
    """Images for one student step, and where known their labels and places in a buffer."""

    images: Tensor  # [B, C, H, W] in [0, 1]
    labels: Tensor | None = None  # [B]
    index: Tensor | None = None  # [B]


class Counts(NamedTuple):
    """How many synthetic images a run has made, or pictures of a pool it has seen, and how many it still holds."""

    generated: int
    kept: int


class Filling(NamedTuple):
    """What comes before the first student step."""

    rounds: int  # refreshes, in a run of a fixed number of steps
    share: float  # of a budget, at most, that they may take after the first of them


@dataclass(frozen=True)
class Needs:
    """What a method cannot work without."""

    batchnorm: bool = False
    embedding: bool = False  # what a last linear layer receives
    stages: bool = False  # feature maps
    pool: bool = False  # a folder of pictures, which the user names; what has one makes no images

    def missing(self, teacher: Classifier) -> list[str]:
        """What of it the teacher does not have, in words."""
        missing = ["BatchNorm layers"] if self.batchnorm and not teacher.norm_statistics else []
        if self.embedding or self.stages:
            with torch.no_grad():
                seen = teacher.observe(torch.rand(2, *teacher.spec.size, device=teacher.mean.device))
            missing += ["a last linear layer that can be seen"] if self.embedding and seen.embedding is None else []
            missing += ["feature maps"] if self.stages and not seen.stages else []
        return missing


class Method(ABC):
    """Where a student's images come from and what it learns from them. One file per method, one loop for all."""

    needs: ClassVar[Needs]
    options_type: ClassVar[type]  # the frozen dataclass of the recipe's `options`

    def __init__(self, setting: Setting, options: Any):
        self.setting = setting
        self.options = options
        self.notes: list[str] = []  # what the user should know of this pairing, one sentence each

    @abstractmethod
    def ready(self, progress: float) -> bool:
        """Whether there are images to learn from; until then the loop only refreshes."""

    def untouched_bytes(self) -> int:
        """Memory that the method has reserved for images which it has not made yet, for plans."""
        return 0

    def filling(self) -> Filling:
        """How long it takes until there are images to learn from, for plans."""
        return Filling(rounds=1, share=1.0)

    @abstractmethod
    def refresh(self, progress: float) -> Terms:
        """Renews the source of images; the student is frozen meanwhile. Returns what to log.

        `progress` is the share of the whole run done, in [0, 1].
        """

    @abstractmethod
    def sample(self) -> Batch:
        """Images for one student step, augmented."""

    @abstractmethod
    def student_loss(self, batch: Batch, progress: float) -> tuple[Terms, Terms]:
        """Weighted scalar terms, which the loop adds up, and further quantities to log, scalars or vectors.

        `progress` is the share of the student's own training done, in [0, 1]: 0 at its first step.
        """

    @abstractmethod
    def fresh_images(self, count: int) -> Tensor:
        """`count` new images [count, C, H, W] in [0, 1] that the student has not seen, without augmentation."""

    @abstractmethod
    def shown_images(self, count: int) -> Tensor:
        """At most `count` images [n, C, H, W] in [0, 1] that the student has seen, without augmentation."""

    @abstractmethod
    def counts(self) -> Counts:
        """How many images were generated and how many are kept."""

    def remarks(self) -> list[str]:
        """What happened to this run that the user should know, one sentence each."""
        return []

    def extra_modules(self) -> Iterable[nn.Module]:
        """Networks trained in the same step as the student and thrown away with the run."""
        return ()

    def files(self) -> dict[str, str]:
        """Further text files for the output folder, by their name in `output_folder.WRITTEN`."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs besides the student."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
