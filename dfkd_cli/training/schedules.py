"""How a value changes over a run: pure functions of progress, the share of training done in [0, 1]."""

import math


def cosine(progress: float, start: float, end: float = 0.0) -> float:
    """`start` at progress 0, `end` at 1, along half a cosine."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def ramp(progress: float, until: float) -> float:
    """0 at progress 0, growing linearly to 1 at `until` and 1 from there on; always 1 when `until` is 0."""
    return 1.0 if until <= 0.0 else min(progress / until, 1.0)


def linear(progress: float, start: float, end: float, begin: float = 0.0, until: float = 1.0) -> float:
    """`start` up to progress `begin`, then straight to `end` at `until` and `end` from there on."""
    if progress <= begin:
        return start
    return end if progress >= until else start + (end - start) * (progress - begin) / (until - begin)


def end_of_share(begin: float, share: float) -> float:
    """The progress at which a share of what is left at `begin` is used up: below 1 for shares below 1."""
    return begin + share * (1.0 - begin)
