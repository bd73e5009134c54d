"""CGDD: a generator told which class to draw, and a student that also learns where to look (arXiv:2112.15358)."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_cli.config.values import require
from dfkd_cli.distillation import losses
from dfkd_cli.distillation.attention import AttentionForm, attention_transfer, match_stages
from dfkd_cli.errors import RecipeMismatchError
from dfkd_cli.methods.labelled import LabelledMethod, LabelledOptions
from dfkd_cli.synthesis.inversion import Inverted
from dfkd_cli.synthesis.store import ImageStore
from dfkd_cli.training.method import Batch, Needs
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class CgddOptions(LabelledOptions):
    """The constants of the method; `recipes/cgdd.yaml` says where each value comes from."""

    on_class_only: bool  # adversarial term only where the teacher sees the class that was asked for
    gamma: float  # of the class prior's factor (1 - p)^gamma
    sure_enough: float  # probability of the class from which on an image is not pulled towards it any more
    store_size: int  # images; the oldest make room
    attention: float  # weight of the attention term
    attention_form: AttentionForm

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0, "gamma", "sure_enough", "attention")
        require(self, 1, "store_size")


class Cgdd(LabelledMethod):
    """A conditional generator fills a store with labelled images; the student learns logits, labels and attention."""

    needs = Needs(stages=True)
    options_type = CgddOptions

    def __init__(self, setting: Setting, options: CgddOptions):
        spec, device = setting.teacher.spec, setting.runtime.device
        store = ImageStore(options.store_size, spec.size, spec.num_classes, device)
        super().__init__(setting, options, store, on_class_only=options.on_class_only)
        teacher, student = setting.probe()
        if not student.stages:
            raise RecipeMismatchError("recipe cgdd sees no feature maps in this student; choose another --student")
        sizes = [f"{one.shape[2]}x{one.shape[3]}" for one, _ in match_stages(student.stages, teacher.stages)]
        self.hit_rates = torch.zeros(spec.num_classes, device=device)
        self.notes.append(f"Attention is compared at {', '.join(sizes)} pixels.")

    def refresh(self, progress: float) -> Terms:
        """Trains the generator and stores its last batch with the labels it was asked for."""
        made = self.renew(self._modulation, float(self.ready(progress)), progress)
        self.store.append(made.images, made.labels)
        self.hit_rates = self._renewed_hit_rates(made)
        return self.log_of(made) | {"synthesis/hit_rate_by_class": self.hit_rates}

    def _modulation(self, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """(1 - p)^gamma with the probability p of the class asked for, and 0 once p is enough.

        An image that the teacher already recognises has nothing to gain from being more typical, only variety to lose.
        """
        asked = teacher_logits.float().softmax(dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
        return (1.0 - asked).pow(self.options.gamma) * (asked < self.options.sure_enough)

    def _renewed_hit_rates(self, made: Inverted) -> Tensor:
        """Share of the images asked for of each class that show it to the teacher: [K].

        A class that this batch has no room for keeps the rate of the last batch that had.
        """
        hits = losses.hits(made.teacher_logits, made.labels)
        asked = F.one_hot(made.labels, len(self.hit_rates)).float()
        count = asked.sum(dim=0)
        return torch.where(count > 0, hits @ asked / count.clamp_min(1.0), self.hit_rates)

    def student_loss(self, batch: Batch, progress: float) -> tuple[Terms, Terms]:
        """KL, cross-entropy against the labels asked for, and attention transfer at every stage."""
        if batch.labels is None:
            raise ValueError("cgdd learns from labelled images")
        o = self.options
        teacher, student = self.setting.observe(batch.images)
        terms, logged = self.kd_and_label(teacher, student, batch.labels)
        if o.attention:
            distance = attention_transfer(student.stages, teacher.stages, o.attention_form)
            terms["attention"] = o.attention * distance.mean()
        return terms, logged

    def state_dict(self) -> dict[str, Any]:
        """Generator, rounds, store and the rates by class."""
        return super().state_dict() | {"hit_rates": self.hit_rates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        super().load_state_dict(state)
        self.hit_rates = state["hit_rates"].to(self.hit_rates.device)
