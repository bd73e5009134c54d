"""CSD: images on which an auxiliary head on the student's features fails (arXiv:2307.04542)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.config.values import require
from dfkd_cli.synthesis.generator_loss import GeneratorLoss
from dfkd_cli.synthesis.inversion import InversionConfig, inversion_terms
from dfkd_cli.synthesis.source import GeneratedImages
from dfkd_cli.synthesis.store import ImageStore, StoreConfig
from dfkd_cli.synthesis.terms import Term, View
from dfkd_cli.synthesis.trainer import GeneratorConfig, GeneratorTrainer
from dfkd_cli.synthesis.warmup import Warmup, WarmupConfig
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.distillation.alignment import FeatureAlignment
from dfkd_cli.training.distillation.labels import LabelConfig, kd_and_label
from dfkd_cli.training.distillation.rotation_task import RotationConfig, RotationTask
from dfkd_cli.training.method import Batch, Method, MethodDefinition, Needs, StudentLoss, StudentTerms
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class RewardConfig:
    """The generator's term that raises the head's cross-entropy."""

    weight: float  # 0 switches it off, and the head with it
    cap: float  # upper bound of an image's cross-entropy, in units of that of a uniform prediction

    def __post_init__(self) -> None:
        require(self, 0, "weight", "cap")


@dataclass(frozen=True)
class FeatureConfig:
    """The term of the last feature map."""

    weight: float  # 0 switches it off
    width: int  # channels in the middle of the projection

    def __post_init__(self) -> None:
        require(self, 0, "weight")
        require(self, 1, "width")


@dataclass(frozen=True)
class CsdOptions:
    """The constants of the method; `docs/recipes.md` gives the source of each value."""

    generator: GeneratorConfig
    rounds_per_generator: int  # rounds until the generator gets new random weights; 0: never
    trainable_noise: bool  # optimise a round's noise with the generator; off: new noise at every step
    augment_synthesis: bool  # compute the generator's loss on random views of the images
    inversion: InversionConfig
    warmup: WarmupConfig
    store: StoreConfig
    reward: RewardConfig
    head: RotationConfig
    labels: LabelConfig
    feature: FeatureConfig

    def __post_init__(self) -> None:
        require(self, 0, "rounds_per_generator")


def build(setting: Setting, options: CsdOptions) -> Method:
    """Return a generator that also maximises the head's loss, a store, and a student loss with projected features."""
    trainer = GeneratorTrainer(
        setting,
        options.generator,
        trainable_noise=options.trainable_noise,
        restart_every=options.rounds_per_generator,
    )
    loss = HeadAndFeatureLoss(setting, options)
    terms = [*inversion_terms(setting, options.inversion)]
    if loss.task is not None:
        terms.append(reward(options.reward, loss.task))
    source = GeneratedImages(
        trainer,
        GeneratorLoss(setting, terms, _views(setting) if options.augment_synthesis else None),
        Warmup(options.warmup),
        ImageStore(
            options.store.capacity(setting.teacher.spec),
            setting.teacher.spec,
            setting.runtime.device,
            setting.runtime.world,
        ),
        notes=[*options.inversion.notes(setting), *options.store.notes(setting.teacher.spec)],
    )
    return Method(source, loss)


def _views(setting: Setting) -> Callable[[Tensor], Tensor]:
    return partial(setting.augmentation.without_mixing(), rng=setting.rng)


def reward(config: RewardConfig, task: RotationTask) -> Term:
    """Return the negative cross-entropy of the head, up to the cap; active after the head's first step."""

    def value(view: View) -> Tensor:
        return -task.hardness(view.images, view.labels).clamp(max=config.cap * task.chance).mean()

    return Term("reward", config.weight, of_view=value, active=lambda: task.steps > 0)


class HeadAndFeatureLoss(StudentLoss):
    """Predictions, labels and the projected last feature map; the head is trained after each step."""

    def __init__(self, setting: Setting, options: CsdOptions):
        super().__init__()
        self.setting, self.options = setting, options
        self.alignment = self._make_alignment() if options.feature.weight > 0.0 else None
        self.task = RotationTask(setting, options.head) if options.reward.weight > 0.0 else None

    def _make_alignment(self) -> FeatureAlignment:
        return self.setting.runtime.place(FeatureAlignment(self.setting, self.options.feature.width))

    def follow_student(self) -> None:
        """Make a new projection or head if the student's last feature map or embedding has another size by now."""
        if self.alignment is not None:
            channels = self.setting.probe()[1].stages[-1].shape[1]
            self.alignment = self.alignment if channels == self.alignment.channels else self._make_alignment()
        if self.task is not None:
            self.task.follow_student()

    def modules(self) -> Iterable[nn.Module]:
        """Return the projection of the student's features, if there is one."""
        return () if self.alignment is None else (self.alignment,)

    def compute(self, batch: Batch, progress: float) -> StudentTerms:
        """Return the terms `kd`, `label` and `feature`; per image its weight in the head's training."""
        if batch.labels is None:
            raise ValueError("csd needs labelled images")
        o = self.options
        teacher, student = self.setting.observe(batch.images)
        terms, logged = kd_and_label(o.labels, teacher, student, batch.labels)
        if self.alignment is not None:
            with self.setting.runtime.autocast():
                error = self.alignment(student.stages[-1], teacher.stages[-1])
            terms["feature"] = o.feature.weight * error.mean()
        hits = losses.hits(teacher.logits, batch.labels)
        return StudentTerms(terms, logged, {"trusted": hits if o.labels.mask else torch.ones_like(hits)})

    def after_step(self, batch: Batch, per_image: Mapping[str, Tensor]) -> Terms:
        """Train the head, if there is one, for one step on the updated student."""
        if batch.labels is None or self.task is None:
            return {}
        return self.task.train(batch.images, batch.labels, per_image["trusted"])

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the head, None without it."""
        return {"head": None if self.task is None else self.task.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if self.task is not None:
            self.task.load_state_dict(state["head"])


CSD = MethodDefinition(CsdOptions, build, Needs(stages=True, one_answer=True))
