"""The terms of a generator's loss: one function per term, each of which returns a weighted summand for one teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.networks import Outputs
from dfkd_cli.networks.pixels import per_image
from dfkd_cli.synthesis.batchnorm import BatchNormForm, batchnorm_loss
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.distillation.projection import embedding_size
from dfkd_cli.training.setting import Setting

# teacher logits [B, K], labels [B] -> weight of each sample [B]; or [B, K, H, W], [B, H, W] -> [B, H, W]
Modulation = Callable[[Tensor, Tensor], Tensor]
Share = Callable[[float], float]  # progress in [0, 1] -> share of a term's weight


class View(NamedTuple):
    """A generated batch and the networks' predictions for it."""

    images: Tensor  # [B, C, H, W] in [0, 1]
    labels: Tensor  # [B] or [B, H, W]: requested of a conditional generator, otherwise the teacher's predictions
    teacher: Tensor  # logits [B, K]
    student: Tensor | None  # logits [B, K]; None while no term needs them


@dataclass(frozen=True)
class Term:
    """One summand of the generator's loss. Exactly one of `of_view` and `of_teacher` computes its value, a scalar."""

    name: str
    weight: float
    of_view: Callable[[View], Tensor] | None = None
    of_teacher: Callable[[Outputs], Tensor] | None = None  # computed with the teacher's forward, and compiled with it
    needs_student: bool = False  # the term counts only after the warm-up
    share: Share | None = None  # None: the whole weight, always
    active: Callable[[], bool] | None = None  # None: always


def equally(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return ones in the shape of the labels: a modulation that weighs all answers equally."""
    return torch.ones(labels.shape, device=teacher_logits.device)


def batchnorm(setting: Setting, weight: float, form: BatchNormForm, share: Share | None = None) -> Term | None:
    """Return the distance to the BatchNorm statistics; None without BatchNorm layers.

    The form "norm" is that of arXiv:1912.08795, eq. 4.
    """
    statistics = setting.teacher.norm_statistics
    if not statistics:
        return None
    # A network that cannot be compiled still gets one compiled pass over its layers' inputs instead of many.
    distance = batchnorm_loss if setting.teacher.network.compilable else setting.runtime.compile(batchnorm_loss)
    world = setting.runtime.world
    return Term("bn", weight, of_teacher=lambda seen: distance(seen.norm_inputs, statistics, form, world), share=share)


def class_prior(weight: float, modulation: Modulation = equally) -> Term:
    """Return the teacher's cross-entropy against the labels, each sample weighted by `modulation`.

    With labels that are the teacher's own predictions it is the one-hot term of DAFL (arXiv:1904.01186, eq. 4).
    """

    def value(view: View) -> Tensor:
        prior = F.cross_entropy(view.teacher.float(), view.labels, reduction="none")
        return (modulation(view.teacher, view.labels) * prior).mean()

    return Term("class_prior", weight, of_view=value)


def adversarial(
    weight: float,
    *,
    contested_only: bool = False,
    on_class_only: bool = False,
    temperature: float = 1.0,
    share: Share | None = None,
    cap: float | None = None,
) -> Term:
    """Return the negative disagreement of student and teacher, in nats.

    `contested_only` counts images on which both predict the same class, `on_class_only` those on which the teacher
    predicts the label. An answer counts up to `cap` nats: a student whose layers come from another depth of the teacher
    can disagree without a bound.
    """
    disagreement = partial(contested_kl if contested_only else losses.kl_div, temperature=temperature, cap=cap)

    def value(view: View) -> Tensor:
        if view.student is None:
            raise ValueError("the adversarial term needs the student's logits")
        distance = disagreement(view.student, view.teacher)
        if on_class_only:
            distance = distance * (view.teacher.argmax(dim=1) == view.labels)
        return -distance.mean()

    return Term("adversarial", weight, of_view=value, needs_student=True, share=share)


def balance(setting: Setting, weight: float) -> Term:
    """Return the negative entropy of the mean prediction for all processes' batches (arXiv:1904.01186, eq. 6)."""
    world = setting.runtime.world
    return Term("balance", weight, of_view=lambda view: -losses.batch_entropy(view.teacher, world))


def activation(setting: Setting, weight: float) -> Term | None:
    """Return the negative mean absolute embedding (arXiv:1904.01186, eq. 5); None without a visible embedding."""
    if weight == 0.0 or embedding_size(setting.teacher) is None:
        return None

    def value(seen: Outputs) -> Tensor:
        if seen.embedding is None:
            raise ValueError("the teacher's embedding is not visible")
        return -losses.activation_size(seen.embedding).mean()

    return Term("activation", weight, of_teacher=value)


def total_variation(weight: float) -> Term:
    """Return the mean absolute difference of neighbouring pixels."""
    return Term("total_variation", weight, of_view=lambda view: losses.total_variation(view.images).mean())


def contested_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, cap: float | None = None
) -> Tensor:
    """Return T^2 * KL(teacher || student) where both predict the same class, else 0: [B, K], [B, K] -> [B].

    FastDFKD's form (arXiv:2112.15278): it moves images towards the student's decision boundary and not beyond it.
    """
    agree = losses.answers_agree(student_logits, teacher_logits)
    return per_image(agree * losses.answer_kl(student_logits, teacher_logits, temperature, cap))
