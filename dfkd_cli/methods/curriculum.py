"""CuDFKD: images and targets from easy to hard, by a ramped adversary and a self-paced loss (arXiv:2208.13648)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from dfkd_cli.config.values import require, require_share
from dfkd_cli.synthesis.generator_loss import GeneratorLoss
from dfkd_cli.synthesis.inversion import InversionConfig, inversion_terms
from dfkd_cli.synthesis.memory import NoMemory
from dfkd_cli.synthesis.source import GeneratedImages
from dfkd_cli.synthesis.trainer import GeneratorConfig, GeneratorTrainer
from dfkd_cli.synthesis.warmup import Warmup, WarmupConfig
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.distillation.self_paced import Pacing, self_paced_weight
from dfkd_cli.training.method import Batch, Method, MethodDefinition, StudentLoss, StudentTerms
from dfkd_cli.training.schedules import linear
from dfkd_cli.training.setting import Setting


@dataclass(frozen=True)
class CurriculumOptions:
    """The constants of the method; `docs/recipes.md` gives the source of each value."""

    generator: GeneratorConfig
    inversion: InversionConfig
    warmup: WarmupConfig
    adversarial_temperature: float
    adversarial_start: float  # share of the adversarial weight up to `ramp_begin`
    ramp_begin: float  # progress at which the adversarial weight starts to grow
    ramp_end: float  # progress from which on it is full
    pacing: Pacing
    pacing_level: Literal["sample", "batch"]
    relative_difficulty: bool  # difficulty in units of the loss of uniform predictions; off: the loss itself
    lambda_start: float  # threshold of the difficulty at the start
    lambda_end: float  # and at the end
    divergence: Literal["l1", "kl"]
    temperature: float  # of the kl divergence

    def __post_init__(self) -> None:
        require(self, 0, "adversarial_start")
        require_share(self, "ramp_begin")
        require(self, self.ramp_begin, "ramp_end", at_most=1)
        require(self, 0.01, "adversarial_temperature", "lambda_start", "lambda_end", "temperature")


def build(setting: Setting, options: CurriculumOptions) -> Method:
    """Return a generator without memory, with a growing adversarial term, and a self-paced student loss."""
    trainer = GeneratorTrainer(setting, options.generator)
    terms = inversion_terms(
        setting,
        options.inversion,
        adversarial_temperature=options.adversarial_temperature,
        adversarial_share=lambda progress: linear(
            progress, options.adversarial_start, 1.0, options.ramp_begin, options.ramp_end
        ),
    )
    source = GeneratedImages(
        trainer,
        GeneratorLoss(setting, terms),
        Warmup(options.warmup),
        NoMemory(trainer),
        notes=options.inversion.notes(setting),
    )
    return Method(source, SelfPacedLoss(setting, options))


class SelfPacedLoss(StudentLoss):
    """The divergence of the logits, times the self-paced weight of each sample or of the whole batch."""

    def __init__(self, setting: Setting, options: CurriculumOptions):
        super().__init__()
        self.setting, self.options = setting, options
        self.divergence: Callable[[Tensor, Tensor], Tensor] = (
            losses.logit_distance
            if options.divergence == "l1"
            else partial(losses.kl_div, temperature=options.temperature)
        )

    def compute(self, batch: Batch, progress: float) -> StudentTerms:
        """Return the term `kd`, and the agreement, difficulty, weight and threshold."""
        o = self.options
        threshold = linear(progress, o.lambda_start, o.lambda_end)
        teacher, student = self.setting.predict(batch.images)
        loss = self.divergence(student, teacher)
        if o.pacing_level == "batch":
            loss = loss.mean()
        # The scale of logits and loss differs between teachers; one lambda has to fit all of them.
        world = self.setting.runtime.world
        unit = world.mean(self.divergence(torch.zeros_like(teacher), teacher).mean()) if o.relative_difficulty else 1.0
        difficulty = (world.mean(loss.detach()) if o.pacing_level == "batch" else loss.detach()) / unit
        weight = self_paced_weight(difficulty, threshold, o.pacing)
        return StudentTerms(
            {"kd": (weight * loss).mean()},
            {
                "agreement": losses.agreement(student, teacher).mean(),
                "curriculum/difficulty": difficulty.mean(),
                "curriculum/weight": weight.mean(),
                "curriculum/lambda": loss.new_full((), threshold),
            },
        )


CURRICULUM = MethodDefinition(CurriculumOptions, build)
