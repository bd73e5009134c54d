"""Numbers formatted for people: percentages, sizes, times, counts. A dash stands for a missing value."""

DASH = "-"


def share(value: float | None) -> str:
    """Return a fraction as a percentage with two decimals: 0.7047 is "70.47 %"."""
    return DASH if value is None else f"{100 * value:.2f} %"


def megabytes(count: int | None) -> str:
    """Return a number of bytes in MB (10^6 bytes) with two decimals."""
    return DASH if count is None else f"{count / 1e6:,.2f} MB"


def duration(seconds: float) -> str:
    """Return a time in its two largest units: "4.2 s", "45 s", "19 min 51 s", "3 h 05 min"."""
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, which gets an s unless the count is 1: "1 layer", "1,024 layers"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
