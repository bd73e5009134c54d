"""The interface between the training loop and a method: an image source, a student loss and their requirements."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfkd_cli.machine.world.world import World
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.training.setting import Setting, Terms


class Batch(NamedTuple):
    """Images for one student step, with their labels and their slots in a memory if the source has them."""

    images: Tensor  # [B, C, H, W] in [0, 1]
    labels: Tensor | None = None  # [B]
    index: Tensor | None = None  # [B]


class Counts(NamedTuple):
    """How many images a source has generated or read, and how many it holds."""

    generated: int
    kept: int


class WarmupPlan(NamedTuple):
    """How long the warm-up takes."""

    rounds: int  # in a run of a fixed number of steps
    share: float  # largest share of a budget that the rounds after the first one take


class StudentTerms(NamedTuple):
    """The student's loss of one batch."""

    terms: Terms  # weighted scalars; the loop minimises their sum
    logged: Terms  # further quantities, scalars or vectors
    per_image: Mapping[str, Tensor] = MappingProxyType({})  # [B, ...], no gradients; for `StudentLoss.after_step`


class ImageSource(ABC):
    """The source of the images that a student is trained on."""

    def __init__(self, notes: Iterable[str] = ()):
        self.notes: list[str] = list(notes)  # sentences for the user about this teacher and this source

    @abstractmethod
    def ready(self, progress: float) -> bool:
        """Return whether the warm-up is over. `progress` is the share of the whole run that is done, in [0, 1]."""

    @abstractmethod
    def warmup(self) -> WarmupPlan:
        """Return how long the warm-up takes."""

    @abstractmethod
    def round(self, progress: float) -> Terms:
        """Renew the images and return what to log. The student is frozen meanwhile."""

    @abstractmethod
    def sample(self) -> Batch:
        """Return augmented images for one student step."""

    @abstractmethod
    def fresh(self, count: int) -> Tensor:
        """Return images [N, C, H, W] in [0, 1] that the student is not trained on, without augmentation.

        N is `count`, or less if the source has fewer such images.
        """

    @abstractmethod
    def shown(self, count: int) -> Tensor:
        """Return at most `count` images [n, C, H, W] in [0, 1] that the student is trained on, without augmentation."""

    @abstractmethod
    def counts(self) -> Counts:
        """Return how many images the source has generated or read, and how many it holds."""

    def reserved_bytes(self) -> int:
        """Return the size of the memory reserved for images that do not exist yet."""
        return 0

    def remarks(self) -> list[str]:
        """Return sentences for the user about what happened during the run."""
        return []

    def files(self) -> dict[str, str]:
        """Return text files for the output folder by their name in `output_folder.WRITTEN`."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    @abstractmethod
    def reshared(self, states: Sequence[dict[str, Any]], world: World) -> dict[str, Any]:
        """Return the state for this process of a world of another size than the one in which the states were saved."""


class StudentLoss(ABC):
    """The loss of a student for a batch. Computing it changes nothing but the student's BatchNorm statistics."""

    def __init__(self, notes: Iterable[str] = ()):
        self.notes: list[str] = list(notes)  # sentences for the user about these two networks

    @abstractmethod
    def compute(self, batch: Batch, progress: float) -> StudentTerms:
        """Return the loss of a batch, or of a part of a batch after memory ran out.

        `progress` is the share of the student's steps that is done, in [0, 1]: 0 at its first step.
        """

    def modules(self) -> Iterable[nn.Module]:
        """Return networks that are trained in the same step as the student and discarded with the run."""
        return ()

    def follow_student(self) -> None:
        """Make those modules anew whose sizes are no longer those of the student, which has lost channels."""
        return

    def after_step(self, batch: Batch, per_image: Mapping[str, Tensor]) -> Terms:
        """Update what is trained beside the student, and return values to log.

        The loop calls it once per student step, after the optimizer, with the whole batch and its `per_image` values,
        whether or not the loss was computed in parts.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs besides `modules`, which the loop saves."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state to restore")


@dataclass(frozen=True)
class Method:
    """An image source and a student loss for one teacher and one student."""

    source: ImageSource
    loss: StudentLoss

    def notes(self) -> tuple[str, ...]:
        """Return sentences for the user about this method and these networks."""
        return (*self.source.notes, *self.loss.notes)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs besides the student and the loss's modules."""
        return {"source": self.source.state_dict(), "loss": self.loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.source.load_state_dict(state["source"])
        self.loss.load_state_dict(state["loss"])


@dataclass(frozen=True)
class Needs:
    """What a method requires of the teacher and of the user."""

    stages: bool = False  # feature maps
    one_answer: bool = False  # one answer per image, so that images have labels
    pool: bool = False  # a folder of unlabelled images, instead of generated ones

    def missing(self, teacher: Classifier) -> list[str]:
        """Return one phrase per requirement that the teacher does not meet."""
        missing = ["one answer per image"] if self.one_answer and teacher.spec.task != "classification" else []
        if self.stages:
            with torch.no_grad():
                seen = teacher.observe(torch.rand(2, *teacher.spec.size, device=teacher.mean.device))
            missing += ["feature maps"] if not seen.stages else []
        return missing


@dataclass(frozen=True)
class MethodDefinition:
    """One entry of the registry: the options of a method and the function that composes it."""

    options: type  # the frozen dataclass of the recipe's `options`
    build: Callable[[Setting, Any], Method]
    needs: Needs = field(default_factory=Needs)
