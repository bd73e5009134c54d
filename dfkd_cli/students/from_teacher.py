"""A student that begins as the teacher itself."""

import copy
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, fx, nn

from dfkd_cli.errors import DfkdError, UsageError
from dfkd_cli.narrowing.config import NarrowingConfig, Order
from dfkd_cli.narrowing.plan import NarrowingPlan, plan_narrowing, rounded_up, smallest_share
from dfkd_cli.networks import EagerNetwork
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.networks.graphs.trainable import PickedLogits, trainable_module

_TRIAL_IMAGES = 2


@dataclass(frozen=True)
class Shares:
    """To which shares of its parameters a teacher can be narrowed."""

    smallest: float | None  # rounded up to three decimals; None when the teacher cannot be narrowed at all
    reason: str | None  # why it cannot
    whole: tuple[str, ...]  # layers whose channels have to stay, each with the reason


def parse_share(student: str) -> float | None:
    """Return the share of `--student 0.5`, `1/2` or `50%`; None for anything that does not begin like a number.

    Raises UsageError for a number that is not between 0 and 1.
    """
    text = student.strip()
    if not text or not (text[0].isdigit() or text[0] in ".-+"):
        return None
    try:
        share = float(Fraction(text[:-1]) / 100 if text.endswith("%") else Fraction(text))
    except (ValueError, ZeroDivisionError):
        return None  # an architecture whose name begins with a digit, or a mistake that its check reports
    if not 0.0 < share < 1.0:
        raise UsageError(
            f"--student {student}: the share of the teacher's parameters is between 0 and 1, such as 0.5, 1/4 or 25%"
        )
    return share


def student_from_teacher(
    teacher: Classifier, share: float, config: NarrowingConfig
) -> tuple[Classifier, Classifier, NarrowingPlan]:
    """Return a teacher of ordinary layers, the student as a copy of it in training mode, and what is removed from it.

    Raises UsageError when the network cannot be trained, or cannot be narrowed to this share.
    """
    spec = teacher.spec
    module = _own_module(teacher)
    plan = plan_narrowing(module, _images(teacher), share, config)
    if not isinstance(teacher.network, EagerNetwork):
        network = EagerNetwork(copy.deepcopy(module), input_size=spec.size, num_classes=spec.num_classes)
        teacher = Classifier(network, spec, teacher.origin, teacher.returned)
    network = EagerNetwork(module.train(), input_size=spec.size, num_classes=spec.num_classes)
    origin = replace(teacher.origin, kind="new student", sha256=None, notes=())
    return teacher, Classifier(network, spec, origin, teacher.returned), plan


def possible_shares(teacher: Classifier, order: Order) -> Shares:
    """Return the shares that `student_from_teacher` can reach; the smallest one is proven, too."""
    try:
        smallest, whole = smallest_share(_own_module(teacher), _images(teacher), order)
    except DfkdError as error:
        return Shares(None, str(error), ())
    smallest = rounded_up(smallest)
    return Shares(smallest, None, whole) if smallest < 1.0 else Shares(None, "no channel can go", whole)


def _own_module(teacher: Classifier) -> nn.Module:
    """Return a copy of the teacher that can be a student, in evaluation mode. Raises UsageError when there is none."""
    module = trainable_module(teacher.network, teacher.spec.size).eval()
    if isinstance(module, PickedLogits) or (teacher.origin.arch is None and not isinstance(module, fx.GraphModule)):
        raise UsageError(
            f"{teacher.origin.source} is a module that cannot be saved as a student of its own; export it with "
            "torch.export to a .pt2 file, or use the name of an architecture"
        )
    return module


def _images(teacher: Classifier) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_TRIAL_IMAGES, *teacher.spec.size, generator=generator)
