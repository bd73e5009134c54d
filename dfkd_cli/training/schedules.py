"""Schedules: pure functions of progress, the share of the training that is done, in [0, 1]."""

import math


def cosine(progress: float, start: float, end: float = 0.0) -> float:
    """Return `start` at progress 0, `end` at 1, and half a cosine between."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def ramp(progress: float, until: float) -> float:
    """Return 0 at progress 0, 1 from `until` on, and linear values between; always 1 when `until` is 0."""
    return 1.0 if until <= 0.0 else min(progress / until, 1.0)


def linear(progress: float, start: float, end: float, begin: float = 0.0, until: float = 1.0) -> float:
    """Return `start` up to progress `begin`, `end` from `until` on, and linear values between."""
    if progress <= begin:
        return start
    return end if progress >= until else start + (end - start) * (progress - begin) / (until - begin)


def end_of_share(begin: float, share: float) -> float:
    """Return the progress at which this share of what remains at `begin` is over: below 1 for shares below 1."""
    return begin + share * (1.0 - begin)
