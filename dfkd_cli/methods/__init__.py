"""The methods by the name a recipe gives them."""

from dfkd_cli.classifier import Classifier
from dfkd_cli.errors import RecipeMismatchError
from dfkd_cli.methods.base import Batch, Counts, Method, Needs
from dfkd_cli.methods.cgdd import Cgdd
from dfkd_cli.methods.csd import Csd
from dfkd_cli.methods.curriculum import Curriculum
from dfkd_cli.methods.ssd import Ssd

METHODS: dict[str, type[Method]] = {"ssd": Ssd, "curriculum": Curriculum, "csd": Csd, "cgdd": Cgdd}

__all__ = ["METHODS", "Batch", "Counts", "Method", "Needs", "check_needs"]


def check_needs(name: str, teacher: Classifier) -> None:
    """Raises RecipeMismatchError, naming the methods that do fit, when the teacher lacks what the method needs."""
    missing = METHODS[name].needs.missing(teacher)
    if missing:
        fitting = [other for other, method in METHODS.items() if not method.needs.missing(teacher)]
        raise RecipeMismatchError(
            f"recipe {name} needs {' and '.join(missing)}, which {teacher.origin.source} does not have; "
            f"recipes that fit: {', '.join(fitting) or 'none'}"
        )
