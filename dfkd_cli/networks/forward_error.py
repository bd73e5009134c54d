"""Errors of forwards on noise."""

import re

from dfkd_cli.errors import TeacherError

_MESSAGE = re.compile(r"\w*(Error|Exception): ")  # of the error inside a TorchScript error, below its traceback


class ForwardError(TeacherError):
    """A forward on noise that failed, or whose result is no logits. The loader adds the cause and what to do."""

    def __init__(self, message: str, *, ran: bool = False):
        """`ran` tells whether the forward itself was complete."""
        super().__init__(message)
        self.ran = ran


def failed_forward(size: tuple[int, ...], reason: Exception | str) -> ForwardError:
    """Return the error of a forward on images of `size`, without its batch."""
    reason = reason if isinstance(reason, str) else error_line(reason)
    return ForwardError(f"the network fails on noise of {'x'.join(map(str, size))}: {reason}")


def error_line(error: Exception) -> str:
    """Return the type and the message of an error in one line; TorchScript errors begin with a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if inner := [line for line in lines if _MESSAGE.match(line)]:
        return inner[-1]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
