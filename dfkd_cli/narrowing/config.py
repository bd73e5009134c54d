"""The `narrowing` section of a recipe."""

from dataclasses import dataclass
from typing import Literal

from dfkd_cli.config.values import require, require_share

Order = Literal["response", "weights", "random"]


@dataclass(frozen=True)
class NarrowingConfig:
    """How a student that begins as the teacher loses its channels; it is ignored for students by name."""

    order: Order  # what decides which channels go first
    fade: float  # share of the training in which channels fade out; 0: all are removed at once, before the first step
    overlap: float  # share of that time which one channel takes to fade out
    blocks: float  # weight of the block outputs; 0 switches the term off
    refit: bool  # whether the layers that read removed channels get new weights by least squares
    rate: float  # factor of the learning rates: the student starts from trained weights

    def __post_init__(self) -> None:
        require_share(self, "fade")
        require(self, 0.001, "overlap", at_most=1)
        require(self, 0, "blocks")
        require(self, 0.0001, "rate", at_most=1)
