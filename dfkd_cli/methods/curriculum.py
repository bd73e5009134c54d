"""CuDFKD: images and targets from easy to hard, by a ramped adversary and a self-paced loss (arXiv:2208.13648)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from dfkd_cli.config.values import require, require_share
from dfkd_cli.distillation import losses
from dfkd_cli.distillation.self_paced import Pacing, self_paced_weight
from dfkd_cli.methods.generative import GenerativeMethod, GenerativeOptions
from dfkd_cli.synthesis.inversion import equally
from dfkd_cli.training.method import Batch, Counts, Needs
from dfkd_cli.training.schedules import linear
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class CurriculumOptions(GenerativeOptions):
    """The constants of the method; `recipes/curriculum.yaml` says where each value comes from."""

    adversarial_temperature: float
    adversarial_start: float  # share of the adversarial weight before the ramp
    ramp_begin: float  # progress at which the adversarial weight starts to grow
    ramp_end: float  # progress at which it is whole
    pacing: Pacing
    pacing_level: Literal["sample", "batch"]
    relative_difficulty: bool  # measure it in what a student that knows nothing would have; off: as the loss itself
    lambda_start: float  # difficulty up to which a sample counts, at the start
    lambda_end: float
    divergence: Literal["l1", "kl"]
    temperature: float  # of the kl divergence

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0, "adversarial_start")
        require_share(self, "ramp_begin")
        require(self, self.ramp_begin, "ramp_end", at_most=1)
        require(self, 0.01, "adversarial_temperature", "lambda_start", "lambda_end", "temperature")


class Curriculum(GenerativeMethod):
    """Every student step learns from new images of a generator that turns against the student little by little."""

    needs = Needs()
    options_type = CurriculumOptions

    def __init__(self, setting: Setting, options: CurriculumOptions):
        super().__init__(setting, options, options.adversarial_temperature)
        self.divergence: Callable[[Tensor, Tensor], Tensor] = (
            losses.logit_distance
            if options.divergence == "l1"
            else partial(losses.kl_div, temperature=options.temperature)
        )
        self.latest = torch.zeros(0, *setting.teacher.spec.size, device=setting.runtime.device)  # before augmentation

    def refresh(self, progress: float) -> Terms:
        """Trains the generator; how much it counts that the student disagrees depends on the progress."""
        o = self.options
        adversarial = 0.0  # a student that knows nothing yet has no say
        if self.ready(progress):
            adversarial = linear(progress, o.adversarial_start, 1.0, o.ramp_begin, o.ramp_end)
        made = self.renew(equally, adversarial, progress)
        return self.log_of(made) | {"curriculum/adversarial": made.images.new_full((), adversarial)}

    def sample(self) -> Batch:
        """Images that no step has seen before, as the paper has it: nothing is stored."""
        self.latest = self.synthesizer.sample(self.setting.batch_size)
        return Batch(self.setting.augment(self.latest))

    def student_loss(self, batch: Batch, progress: float) -> tuple[Terms, Terms]:
        """The divergence, times the self-paced weight of each sample or of the whole batch."""
        o = self.options
        threshold = linear(progress, o.lambda_start, o.lambda_end)
        teacher, student = self.setting.predict(batch.images)
        loss = self.divergence(student, teacher)
        if o.pacing_level == "batch":
            loss = loss.mean()
        # How large logits are, and with them the loss, differs between teachers; without this lambda would not fit all.
        unit = self.divergence(torch.zeros_like(teacher), teacher).mean() if o.relative_difficulty else 1.0
        difficulty = loss.detach() / unit
        weight = self_paced_weight(difficulty, threshold, o.pacing)
        return {"kd": (weight * loss).mean()}, {
            "agreement": losses.agreement(student, teacher).mean(),
            "curriculum/difficulty": difficulty.mean(),
            "curriculum/weight": weight.mean(),
            "curriculum/lambda": loss.new_full((), threshold),
        }

    def shown_images(self, count: int) -> Tensor:
        """Images of the latest student step."""
        return self.latest[:count]

    def counts(self) -> Counts:
        """All images the generator made; only the latest batch is at hand."""
        return Counts(generated=self.synthesizer.generated, kept=len(self.latest))

    def state_dict(self) -> dict[str, Any]:
        """The generator, the number of rounds and the latest images."""
        return super().state_dict() | {"latest": self.latest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        super().load_state_dict(state)
        self.latest = state["latest"].to(self.latest.device)
