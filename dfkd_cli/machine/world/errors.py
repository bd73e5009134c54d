"""What can happen among several processes."""

from dfkd_cli.errors import DfkdError


class LostProcessError(DfkdError):
    """Another process of the run has ended or cannot be reached."""


class CalledOffError(RuntimeError):
    """Another process ran out of memory: this step is computed anew, in smaller parts."""
