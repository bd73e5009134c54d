"""Knowledge distillation of trained vision classifiers without their training data.

`compress`, `evaluate` and `load` are the functions of the commands with the same purpose; see `dfkd_cli.api`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dfkd_cli.config.version import __version__

if TYPE_CHECKING:
    from dfkd_cli.api import compress, evaluate, load

__all__ = ["__version__", "compress", "evaluate", "load"]


def __getattr__(name: str) -> Any:
    """Return a function of `dfkd_cli.api`, which is imported at its first use because it imports torch."""
    if name in ("compress", "evaluate", "load"):
        return getattr(import_module("dfkd_cli.api"), name)
    raise AttributeError(f"module 'dfkd_cli' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
