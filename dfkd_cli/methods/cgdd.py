"""CGDD: a conditional generator, and a student loss with attention maps (arXiv:2112.15358)."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.config.values import require
from dfkd_cli.errors import RecipeMismatchError
from dfkd_cli.synthesis.buffer import SMALLEST_DOUBT
from dfkd_cli.synthesis.generator_loss import Generated, GeneratorLoss
from dfkd_cli.synthesis.inversion import InversionConfig, inversion_terms
from dfkd_cli.synthesis.source import GeneratedImages, RoundMeasure
from dfkd_cli.synthesis.store import ImageStore, StoreConfig
from dfkd_cli.synthesis.trainer import GeneratorConfig, GeneratorTrainer
from dfkd_cli.synthesis.warmup import Warmup, WarmupConfig
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.distillation.attention import AttentionForm, attention_transfer, match_stages
from dfkd_cli.training.distillation.labels import LabelConfig, kd_and_label
from dfkd_cli.training.method import Batch, Method, MethodDefinition, Needs, StudentLoss, StudentTerms
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class AttentionConfig:
    """The attention term."""

    weight: float  # 0 switches it off
    form: AttentionForm

    def __post_init__(self) -> None:
        require(self, 0, "weight")


@dataclass(frozen=True)
class CgddOptions:
    """The constants of the method; `docs/recipes.md` gives the source of each value."""

    generator: GeneratorConfig
    inversion: InversionConfig
    warmup: WarmupConfig
    store: StoreConfig
    on_class_only: bool  # adversarial term only where the teacher predicts the label
    gamma: float  # of the class prior's factor (1 - p)^gamma
    sure_enough: float  # probability of the label from which on an image has no class prior
    labels: LabelConfig
    attention: AttentionConfig

    def __post_init__(self) -> None:
        require(self, 0, "gamma", "sure_enough")


def build(setting: Setting, options: CgddOptions) -> Method:
    """Return a conditional generator with a store of labelled images, and a loss with attention transfer."""
    spec, device = setting.teacher.spec, setting.runtime.device
    loss = AttentionLoss(setting, options.labels, options.attention)
    trainer = GeneratorTrainer(setting, options.generator)
    terms = inversion_terms(
        setting,
        options.inversion,
        modulation=partial(modulation, options),
        on_class_only=options.on_class_only,
    )
    source = GeneratedImages(
        trainer,
        GeneratorLoss(setting, terms),
        Warmup(options.warmup),
        ImageStore(options.store.capacity(spec), spec, device, setting.runtime.world),
        measure=HitRates(spec.num_classes, device),
        notes=[*options.inversion.notes(setting), *options.store.notes(spec)],
    )
    return Method(source, loss)


def modulation(options: CgddOptions, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return (1 - p)^gamma with the probability p of the label, and 0 from `sure_enough` on: [B, K], [B] -> [B].

    More class prior on an image that the teacher already recognises would only reduce variety.
    """
    of_label = teacher_logits.float().softmax(dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    return (1.0 - of_label).clamp_min(SMALLEST_DOUBT).pow(options.gamma) * (of_label < options.sure_enough)


class HitRates(RoundMeasure):
    """For each class, the share of images with its label that the teacher assigns to it.

    A class without an image in the latest batch keeps its earlier rate.
    """

    def __init__(self, num_classes: int, device: torch.device):
        self.rates = torch.zeros(num_classes, device=device)

    def __call__(self, generated: Generated) -> Terms:
        """Return the rates [K]."""
        hits = losses.hits(generated.teacher_logits, generated.labels)
        requested = F.one_hot(generated.labels, len(self.rates)).float()
        count = requested.sum(dim=0)
        self.rates = torch.where(count > 0, hits @ requested / count.clamp_min(1.0), self.rates)
        return {"synthesis/hit_rate_by_class": self.rates}

    def state_dict(self) -> dict[str, Any]:
        """Return the rates."""
        return {"rates": self.rates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.rates = state["rates"].to(self.rates.device)


class AttentionLoss(StudentLoss):
    """Predictions, labels, and the attention maps of all matched stages.

    Raises RecipeMismatchError for a student without visible feature maps.
    """

    def __init__(self, setting: Setting, labels: LabelConfig, attention: AttentionConfig):
        teacher, student = setting.probe()
        if not student.stages:
            raise RecipeMismatchError("recipe cgdd needs visible feature maps of the student; choose another --student")
        sizes = [f"{one.shape[2]}x{one.shape[3]}" for one, _ in match_stages(student.stages, teacher.stages)]
        super().__init__([f"Attention maps are compared at {', '.join(sizes)} pixels."])
        self.setting, self.labels, self.attention = setting, labels, attention

    def compute(self, batch: Batch, progress: float) -> StudentTerms:
        """Return the terms `kd`, `label` and `attention`."""
        if batch.labels is None:
            raise ValueError("cgdd needs labelled images")
        teacher, student = self.setting.observe(batch.images)
        terms, logged = kd_and_label(self.labels, teacher, student, batch.labels)
        if self.attention.weight:
            distance = attention_transfer(student.stages, teacher.stages, self.attention.form)
            terms["attention"] = self.attention.weight * distance.mean()
        return StudentTerms(terms, logged)


CGDD = MethodDefinition(CgddOptions, build, Needs(stages=True, one_answer=True))
