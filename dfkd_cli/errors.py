"""What a user can do wrong or run into: one line to read and one exit code each. Bugs are not listed here."""

import errno


class DfkdError(Exception):
    """A run that failed for a reason the user can act on. The message says what is wrong, what was seen, what to do."""

    exit_code = 1

    def __init__(self, message: str, facts: object = None):
        super().__init__(message)
        self.shown: bool | None = None  # by this process; None: if it is the first one of `torchrun`, or alone
        self.facts = facts  # a dataclass of what was found out all the same, for the command's JSON document

    def lines(self) -> list[str]:
        """What is printed: one line per mistake."""
        return [" ".join(str(self).split())]


class UsageError(DfkdError):
    """A flag, a recipe key, a data folder or an output folder that cannot be used."""

    exit_code = 2


class TeacherError(DfkdError):
    """A network file that cannot be read, does not hold what it should, or is unsafe to open."""

    exit_code = 3


class RecipeMismatchError(DfkdError):
    """A recipe that needs something this teacher does not have."""

    exit_code = 4


class GateMissedError(DfkdError):
    """An evaluation whose result is below the bar the user set."""

    exit_code = 5


class DivergedError(DfkdError):
    """A training whose loss or weights are no longer finite: going on from here cannot help."""


class OutOfMemoryError(DfkdError):
    """The device's memory does not hold this run."""

    exit_code = 6


class InterruptedRunError(DfkdError):
    """A run that the user stopped and can go on with."""

    exit_code = 130


# Of the CPU allocator, and of oneDNN, which says no more when its own allocation fails.
_NO_MEMORY = ("can't allocate memory", "could not create a primitive", "could not create a memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, Python or the system raised this because no memory was left, on any device."""
    # By name, because importing torch only to compare classes would cost more than most failing commands. The CPU
    # allocator has no class of its own.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return bool(kinds & {"OutOfMemoryError", "MemoryError"}) or any(text in str(error) for text in _NO_MEMORY)


def first_line(error: BaseException) -> str:
    """The part of an error's text that says what is wrong, at most 200 characters, or its type without a text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # torch's own lists begin with a headline that ends in a colon.
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return text[:200]
