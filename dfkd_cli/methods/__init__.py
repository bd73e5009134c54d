"""The methods by the name that a recipe gives them."""

from pathlib import Path

from dfkd_cli.errors import RecipeMismatchError, UsageError
from dfkd_cli.methods.cgdd import CGDD
from dfkd_cli.methods.csd import CSD
from dfkd_cli.methods.curriculum import CURRICULUM
from dfkd_cli.methods.dafl import DAFL
from dfkd_cli.methods.ssd import SSD
from dfkd_cli.methods.unlabeled import UNLABELED
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.pool.folder import check_pool
from dfkd_cli.training.method import MethodDefinition

METHODS: dict[str, MethodDefinition] = {
    "ssd": SSD,
    "curriculum": CURRICULUM,
    "csd": CSD,
    "cgdd": CGDD,
    "dafl": DAFL,
    "unlabeled": UNLABELED,
}

__all__ = ["METHODS", "check_needs", "check_pool_for"]


def check_needs(name: str, teacher: Classifier) -> None:
    """Raise RecipeMismatchError, naming the methods that fit, when the teacher lacks what the method needs."""
    missing = METHODS[name].needs.missing(teacher)
    if missing:
        fitting = [other for other, method in METHODS.items() if not method.needs.missing(teacher)]
        raise RecipeMismatchError(
            f"recipe {name} needs {' and '.join(missing)}, which {teacher.origin.source} does not have; "
            f"recipes that fit: {', '.join(fitting) or 'none'}"
        )


def check_pool_for(name: str, pool: Path | None) -> None:
    """Raise UsageError for a pool that is missing, not usable, or given to a method that does not read one."""
    if METHODS[name].needs.pool and pool is None:
        raise UsageError(f"recipe {name} needs a folder of unlabelled images: give --pool DIR")
    if pool is not None and not METHODS[name].needs.pool:
        takers = ", ".join(other for other, method in METHODS.items() if method.needs.pool)
        raise UsageError(f"--pool {pool}: recipe {name} generates its images; leave the option out or use {takers}")
    if pool is not None:
        check_pool(pool)
