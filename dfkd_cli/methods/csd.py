"""CSD: images are made hard for what the student knows now, as a head on its features shows (arXiv:2307.04542)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.config.values import require
from dfkd_cli.distillation import losses
from dfkd_cli.distillation.alignment import FeatureAlignment
from dfkd_cli.distillation.rotation_task import RotationConfig, RotationTask
from dfkd_cli.methods.labelled import LabelledMethod, LabelledOptions
from dfkd_cli.synthesis.inversion import Inverted, equally
from dfkd_cli.synthesis.store import ImageStore
from dfkd_cli.training.method import Batch, Needs
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class CsdOptions(LabelledOptions):
    """The constants of the method; `recipes/csd.yaml` says where each value comes from."""

    rounds_per_generator: int  # until the generator forgets everything; 0: it never does
    trainable_noise: bool  # the batch's noise is optimised with the generator; off: new noise at every step
    augment_synthesis: bool  # the networks judge random views of the generated images
    bank_size: int  # images; the oldest make room
    reward: float  # weight of the head's cross-entropy, which the generator raises
    reward_cap: float  # of an image, in units of a guess's cross-entropy
    head: RotationConfig
    feature: float  # weight of the feature term
    projection_width: int  # channels in the middle of the projection

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0, "rounds_per_generator", "reward", "reward_cap", "feature")
        require(self, 1, "bank_size", "projection_width")


class Csd(LabelledMethod):
    """Rounds of inversion fill a bank; their reward is the error of a head that learns beside the student."""

    needs = Needs(stages=True)
    options_type = CsdOptions

    def __init__(self, setting: Setting, options: CsdOptions):
        spec = setting.teacher.spec
        bank = ImageStore(options.bank_size, spec.size, spec.num_classes, setting.runtime.device)
        super().__init__(setting, options, bank)
        self.views = setting.augmentation.one_image_each()
        self.alignment = setting.runtime.place(FeatureAlignment(setting, options.projection_width))
        self.task = RotationTask(setting, options.head)

    def extra_modules(self) -> Iterable[nn.Module]:
        """What projects the student's features."""
        return (self.alignment,)

    def refresh(self, progress: float) -> Terms:
        """One round of inversion; its last images join the bank as they are, without augmentation."""
        o = self.options
        if o.rounds_per_generator and self.rounds % o.rounds_per_generator == 0:
            self.synthesizer.restart()
        adversarial = float(self.ready(progress))

        def objective(images: Tensor, labels: Tensor | None) -> Inverted:
            views = self.views(images, self.setting.rng) if o.augment_synthesis else images
            made = self.inverted(views, labels, equally, adversarial, progress)
            return made._replace(images=images, terms=made.terms | self._reward(made))

        update = self.synthesizer.invert if o.trainable_noise else self.synthesizer.renew
        made = self.one_round(update, objective, progress)
        self.store.append(made.images, made.labels)
        return self.log_of(made) | {"bank/class_shares": self.store.class_shares()}

    def _reward(self, made: Inverted) -> Terms:
        """Minus the head's cross-entropy up to the cap; nothing before the head has learned anything."""
        if self.options.reward == 0.0 or self.task.steps == 0:
            return {}
        hardness = self.task.hardness(made.images, made.labels)
        cap = self.options.reward_cap * self.task.chance
        return {"reward": -self.options.reward * hardness.clamp(max=cap).mean()}

    def student_loss(self, batch: Batch, progress: float) -> tuple[Terms, Terms]:
        """KL, cross-entropy against the labels and projected features; the head takes a step of its own."""
        if batch.labels is None:
            raise ValueError("csd learns from labelled images")
        o = self.options
        teacher, student = self.setting.observe(batch.images)
        terms, logged = self.kd_and_label(teacher, student, batch.labels)
        if o.feature:
            with self.setting.runtime.autocast():
                terms["feature"] = o.feature * self.alignment(student.stages[-1], teacher.stages[-1]).mean()
        if o.reward:
            hits = losses.hits(teacher.logits, batch.labels)
            trusted = hits if o.mask_labels else torch.ones_like(hits)
            logged |= self.task.learn(batch.images, batch.labels, trusted)
        return terms, logged

    def state_dict(self) -> dict[str, Any]:
        """Generator, rounds, bank and head; the loop keeps the alignment."""
        return super().state_dict() | {"head": self.task.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        super().load_state_dict(state)
        self.task.load_state_dict(state["head"])
