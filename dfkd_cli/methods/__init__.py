"""The methods by the name a recipe gives them."""

from pathlib import Path

from dfkd_cli.errors import RecipeMismatchError, UsageError
from dfkd_cli.methods.cgdd import Cgdd
from dfkd_cli.methods.csd import Csd
from dfkd_cli.methods.curriculum import Curriculum
from dfkd_cli.methods.ssd import Ssd
from dfkd_cli.methods.unlabeled import Unlabeled
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.pool.folder import check_pool
from dfkd_cli.training.method import Batch, Counts, Filling, Method, Needs

METHODS: dict[str, type[Method]] = {
    "ssd": Ssd,
    "curriculum": Curriculum,
    "csd": Csd,
    "cgdd": Cgdd,
    "unlabeled": Unlabeled,
}

__all__ = ["METHODS", "Batch", "Counts", "Filling", "Method", "Needs", "check_needs", "check_pool_for"]


def check_needs(name: str, teacher: Classifier) -> None:
    """Raises RecipeMismatchError, naming the methods that do fit, when the teacher lacks what the method needs."""
    missing = METHODS[name].needs.missing(teacher)
    if missing:
        fitting = [other for other, method in METHODS.items() if not method.needs.missing(teacher)]
        raise RecipeMismatchError(
            f"recipe {name} needs {' and '.join(missing)}, which {teacher.origin.source} does not have; "
            f"recipes that fit: {', '.join(fitting) or 'none'}"
        )


def check_pool_for(name: str, pool: Path | None) -> None:
    """Raises UsageError when the method needs a pool and there is none, or the other way round, or it is no use."""
    if METHODS[name].needs.pool and pool is None:
        raise UsageError(f"recipe {name} learns from a folder of unlabelled pictures: name it with --pool DIR")
    if pool is not None and not METHODS[name].needs.pool:
        takers = ", ".join(other for other, method in METHODS.items() if method.needs.pool)
        raise UsageError(f"--pool {pool}: recipe {name} makes its own images; leave the flag out or use {takers}")
    if pool is not None:
        check_pool(pool)
