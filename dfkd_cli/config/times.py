"""Times as people write them: 90s, 30m, 2h."""

import re

from dfkd_cli.errors import UsageError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_seconds(text: str) -> float | None:
    """Return the seconds of a time such as 90s, 30m or 1.5h, None for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip().lower())
    if match is None or float(match[1]) == 0.0:
        return None
    return float(match[1]) * _SECONDS[match[2]]


def parse_budget(budget: str | float, at_least: float = 0.0) -> float:
    """Return the seconds of a time such as 90s, 30m or 1.5h; a number is seconds already.

    Raises UsageError for any other text, and for fewer than `at_least` seconds.
    """
    seconds = parse_seconds(budget) if isinstance(budget, str) else float(budget)
    if seconds is None or seconds < at_least:
        least = f" of {at_least:g}s or more" if at_least else ""
        raise UsageError(f"--budget {budget}: write a time{least}, such as 90s, 30m or 2h")
    return seconds


def parse_interval(text: str) -> tuple[float | None, int | None]:
    """Return seconds (of 10m) and None, or None and steps (of 500). Raises UsageError for anything else."""
    seconds = parse_seconds(text)
    if seconds is None and not (text.isdecimal() and int(text) > 0):
        raise UsageError(f"--checkpoint-every {text}: write a time such as 10m, or a number of steps such as 500")
    return (seconds, None) if seconds is not None else (None, int(text))
