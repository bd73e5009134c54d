"""Knowledge distillation of trained vision classifiers without their training data.

from dfkd_cli import compress, evaluate, load

report = compress("teacher.pt2", student=0.5, out="out", budget="30m")
print(evaluate("out", "images/", teacher="teacher.pt2").relative_accuracy)
student = load("out")

The commands `dfkd compress` and `dfkd evaluate` call these functions. All errors that a user can act on are subclasses
of `dfkd_cli.errors.DfkdError`; their messages name the options of the commands, which have the same names here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dfkd_cli.config.version import __version__

if TYPE_CHECKING:
    from dfkd_cli.compression.interface import compress
    from dfkd_cli.evaluation.interface import evaluate, load

__all__ = ["__version__", "compress", "evaluate", "load"]
_PACKAGES = {"compress": "compression", "evaluate": "evaluation", "load": "evaluation"}


def __getattr__(name: str) -> Any:
    """Return a function of the interface, which is imported at its first use because it imports torch."""
    if name in _PACKAGES:
        return getattr(import_module(f"dfkd_cli.{_PACKAGES[name]}.interface"), name)
    raise AttributeError(f"module 'dfkd_cli' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
