"""What a generated image has to please: the terms of model inversion, shared by the generative methods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.config.values import require
from dfkd_cli.distillation import losses
from dfkd_cli.distillation.projection import embedding_size
from dfkd_cli.errors import UsageError
from dfkd_cli.synthesis.batchnorm import BatchNormForm, batchnorm_loss
from dfkd_cli.training.setting import Setting, Terms

Modulation = Callable[[Tensor, Tensor], Tensor]  # teacher logits [B, K], labels [B] -> weight of each sample [B]


@dataclass(frozen=True)
class InversionWeights:
    """The weight of each term in the generator's loss; 0 switches a term off and saves its cost."""

    bn: float = 0.0  # distance to the BatchNorm statistics
    class_prior: float = 0.0  # cross-entropy of the teacher against the label asked for
    adversarial: float = 0.0  # disagreement of student and teacher
    balance: float = 0.0  # entropy of the batch's mean prediction
    activation: float = 0.0  # size of the teacher's embedding
    total_variation: float = 0.0  # roughness of the images

    def __post_init__(self) -> None:
        require(self, 0, *(weight.name for weight in fields(self)))


class Inverted(NamedTuple):
    """A generated batch, what both networks say of it, and the weighted terms of the generator's loss."""

    images: Tensor  # [B, C, H, W] in [0, 1]
    labels: Tensor  # [B], asked for; without a conditional generator the teacher's own answer
    teacher_logits: Tensor  # [B, K]
    student_logits: Tensor | None  # [B, K]; None while nothing needs them
    terms: Terms

    def detach(self) -> "Inverted":
        """The same without gradients."""
        student = None if self.student_logits is None else self.student_logits.detach()
        terms = {name: value.detach() for name, value in self.terms.items()}
        return Inverted(self.images.detach(), self.labels, self.teacher_logits.detach(), student, terms)


def joined(parts: list[Inverted]) -> Inverted:
    """One batch of several: the images and answers in their order, the terms' means weighted by size."""
    sizes = torch.tensor([len(part.images) for part in parts], device=parts[0].images.device)
    shares = (sizes / sizes.sum()).to(torch.float32)
    answers = [part.student_logits for part in parts if part.student_logits is not None]
    return Inverted(
        images=torch.cat([part.images for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        teacher_logits=torch.cat([part.teacher_logits for part in parts]),
        student_logits=torch.cat(answers) if answers else None,
        terms={name: shares @ torch.stack([part.terms[name].float() for part in parts]) for name in parts[0].terms},
    )


class Inversion:
    """The generator's loss for one teacher and student: looks at the images once and returns every wanted term."""

    def __init__(
        self,
        setting: Setting,
        weights: InversionWeights,
        bn_form: BatchNormForm,
        contested_only: bool,
        adversarial_temperature: float = 1.0,
        on_class_only: bool = False,
    ):
        _check_some_term(setting, weights)
        self.setting, self.weights = setting, weights
        self.bn_form: BatchNormForm = bn_form
        self.disagreement = partial(
            contested_kl if contested_only else losses.kl_div, temperature=adversarial_temperature
        )
        self.on_class_only = on_class_only
        # Where the compiler cannot see into the network, it still makes one pass of the many over the layers' inputs.
        compile, compilable = setting.runtime.compile, setting.teacher.network.compilable
        self.look = compile(self._look) if compilable else self._look
        self.batchnorm_loss = batchnorm_loss if compilable else compile(batchnorm_loss)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Teacher logits, BatchNorm loss and mean activation; the latter two only when they have a weight."""
        teacher, statistics = self.setting.teacher, self.setting.teacher.norm_statistics
        matching = self.weights.bn > 0.0 and len(statistics) > 0
        if not matching and self.weights.activation == 0.0:
            return teacher(images), None, None
        seen = teacher.observe(images)
        bn = self.batchnorm_loss(seen.norm_inputs, statistics, self.bn_form) if matching else None
        if self.weights.activation == 0.0 or seen.embedding is None:
            return seen.logits, bn, None
        return seen.logits, bn, losses.activation_size(seen.embedding).mean()

    def __call__(
        self, images: Tensor, labels: Tensor | None, modulate: Modulation, shares: Mapping[str, float]
    ) -> Inverted:
        """Terms of a batch [B, C, H, W] in [0, 1]; `modulate` weighs each sample's class prior.

        `shares` says by name how much of a term's weight counts now, 1 for those it leaves out: nothing of the
        adversarial one while the student has nothing to say yet. Unknown names raise KeyError.
        Without labels the class prior asks for what the teacher sees already, as DAFL's one-hot term does.
        """
        images = self.setting.runtime.images(images)
        teacher, bn, activation = self.look(images)
        asked = teacher.argmax(dim=1) if labels is None else labels
        prior = F.cross_entropy(teacher.float(), asked, reduction="none")
        whole = vars(self.weights)
        weights = whole | {name: share * whole[name] for name, share in shares.items()}
        student = self.setting.student_forward(images) if weights["adversarial"] else None
        values: dict[str, Tensor | None] = {
            "bn": bn,
            "class_prior": (modulate(teacher, asked) * prior).mean(),
            "adversarial": None if student is None else -self._disagreement(student, teacher, asked).mean(),
            "balance": -losses.batch_entropy(teacher),
            "activation": None if activation is None else -activation,
            "total_variation": losses.total_variation(images).mean(),
        }
        terms = {name: weights[name] * value for name, value in values.items() if value is not None and weights[name]}
        return Inverted(images, asked, teacher, student, terms)

    def _disagreement(self, student: Tensor, teacher: Tensor, asked: Tensor) -> Tensor:
        disagreement = self.disagreement(student, teacher)
        return disagreement * (teacher.argmax(dim=1) == asked) if self.on_class_only else disagreement


def _check_some_term(setting: Setting, weights: InversionWeights) -> None:
    for_any_teacher = (weights.class_prior, weights.adversarial, weights.balance, weights.total_variation)
    if any(for_any_teacher) or (weights.bn and setting.teacher.norm_statistics):
        return
    if not weights.activation or embedding_size(setting.teacher) is None:
        raise UsageError(
            f"the generator has nothing to learn from {setting.teacher.origin.source}: give one of its terms a weight "
            "that this teacher allows, such as class_prior"
        )


def contested_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 * KL(teacher || student) where both predict the same class, else 0: [B, K], [B, K] -> [B].

    FastDFKD's form (arXiv:2112.15278): it moves images towards the student's borders and rewards nothing beyond them.
    """
    return losses.agreement(student_logits, teacher_logits) * losses.kl_div(student_logits, teacher_logits, temperature)


def equally(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """A modulation that weighs every sample the same: -> ones [B]."""
    return torch.ones(len(labels), device=teacher_logits.device)
