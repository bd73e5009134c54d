"""The generator's loss: one pass through both networks, then every active term."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dfkd_cli.errors import UsageError
from dfkd_cli.synthesis.terms import Term, View
from dfkd_cli.training.setting import Setting, Terms


class Generated(NamedTuple):
    """A generated batch, the networks' predictions for it and the weighted terms of the generator's loss."""

    images: Tensor  # [B, C, H, W] in [0, 1]
    labels: Tensor  # [B] or [B, H, W]: requested of a conditional generator, otherwise the teacher's predictions
    teacher_logits: Tensor  # [B, K]
    student_logits: Tensor | None  # [B, K]; None while no term needs them
    terms: Terms

    def detach(self) -> "Generated":
        """Return the same batch without gradients."""
        student = None if self.student_logits is None else self.student_logits.detach()
        terms = {name: value.detach() for name, value in self.terms.items()}
        return Generated(self.images.detach(), self.labels, self.teacher_logits.detach(), student, terms)


def joined(parts: Sequence[Generated]) -> Generated:
    """Return one batch made of several: images and logits in their order, terms averaged with the sizes as weights."""
    sizes = torch.tensor([len(part.images) for part in parts], device=parts[0].images.device)
    shares = (sizes / sizes.sum()).to(torch.float32)
    students = [part.student_logits for part in parts if part.student_logits is not None]
    return Generated(
        images=torch.cat([part.images for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        teacher_logits=torch.cat([part.teacher_logits for part in parts]),
        student_logits=torch.cat(students) if students else None,
        terms={name: shares @ torch.stack([part.terms[name].float() for part in parts]) for name in parts[0].terms},
    )


class GeneratorLoss:
    """The sum of weighted terms for one teacher and student.

    Terms without a weight, and terms that the teacher does not allow (None), are left out. `views` turns the images
    into those that the networks receive, for example an augmentation. `void_class` is never a label: images are made
    for the likeliest other class. Raises UsageError when no term is left.
    """

    def __init__(
        self,
        setting: Setting,
        terms: Iterable[Term | None],
        views: Callable[[Tensor], Tensor] | None = None,
        void_class: int | None = None,
    ):
        self.setting, self.views, self.void_class = setting, views, void_class
        self.terms = [term for term in terms if term is not None and term.weight > 0.0]
        if not self.terms:
            raise UsageError(
                f"the generator's loss has no term for {setting.teacher.origin.source}: set the weight of a term that "
                "this teacher allows, such as class_prior"
            )
        self.forward = setting.runtime.compile(self._forward) if setting.teacher.network.compilable else self._forward

    def __call__(self, images: Tensor, labels: Tensor | None, progress: float, warm: bool) -> Generated:
        """Return a batch [B, C, H, W] of images in [0, 1] with the terms that count at this progress.

        `labels` [B] are those requested of a conditional generator. `warm` says that the student has begun to learn.
        """
        shown = self.setting.runtime.images(images if self.views is None else self.views(images))
        teacher, of_teacher = self.forward(shown)
        weights = {term.name: weight for term in self.terms if (weight := self._weight(term, progress, warm))}
        needs_student = any(term.needs_student for term in self.terms if term.name in weights)
        view = View(
            shown,
            self._predicted(teacher) if labels is None else labels,
            teacher,
            self.setting.student_forward(shown) if needs_student else None,
        )
        terms = {}
        for term in self.terms:
            if term.name in weights:
                value = of_teacher[term.name] if term.of_view is None else term.of_view(view)
                terms[term.name] = weights[term.name] * value
        return Generated(images if self.views else shown, view.labels, teacher, view.student, terms)

    def _predicted(self, logits: Tensor) -> Tensor:
        if self.void_class is not None:
            logits = logits.detach().clone()
            logits[:, self.void_class] = -torch.inf
        return logits.argmax(dim=1)

    def shares(self, progress: float, warm: bool) -> dict[str, float]:
        """Return the share of its weight that each scheduled term has at this progress, by the term's name."""
        return {
            term.name: term.share(progress) * float(warm or not term.needs_student) for term in self.terms if term.share
        }

    def _weight(self, term: Term, progress: float, warm: bool) -> float:
        if (term.needs_student and not warm) or (term.active is not None and not term.active()):
            return 0.0
        return term.weight if term.share is None else term.share(progress) * term.weight

    def _forward(self, images: Tensor) -> tuple[Tensor, Terms]:
        """Return the teacher's logits and the terms of its features."""
        of_teacher = {term.name: term.of_teacher for term in self.terms if term.of_teacher is not None}
        if not of_teacher:
            return self.setting.teacher(images), {}
        seen = self.setting.teacher.observe(images)
        return seen.logits, {name: value(seen) for name, value in of_teacher.items()}
