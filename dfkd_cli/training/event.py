"""What the training loop reports at intervals."""

from typing import Literal, NamedTuple


class Event(NamedTuple):
    """The state of a run and the means of its metrics since the last event."""

    phase: Literal["warm-up", "training"]
    step: int  # student steps done
    progress: float  # share of the training done
    images: int  # images the student has learned from
    metrics: dict[str, float | list[float]]
