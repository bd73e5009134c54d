"""SSD-KD: few synthetic images, balanced in class and difficulty, drawn by what is left to learn (arXiv:2406.07876)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_cli.config.values import require
from dfkd_cli.distillation import losses
from dfkd_cli.methods.generative import GenerativeOptions
from dfkd_cli.methods.storing import StoringMethod
from dfkd_cli.synthesis.buffer import Eviction, ReplayBuffer
from dfkd_cli.synthesis.inversion import Inverted
from dfkd_cli.training.method import Batch, Filling, Needs
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class SsdOptions(GenerativeOptions):
    """The constants of the method; `recipes/ssd.yaml` says where each value comes from."""

    buffer_size: int
    eviction: Eviction
    diversity: bool  # first factor of phi
    difficulty: bool  # second factor of phi
    gamma: float  # exponent of the difficulty
    priority: bool  # draw by priority; off: uniformly
    alpha: float
    importance: bool  # weigh the loss against the bias of the drawing
    beta: float
    temperature: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 1, "buffer_size")
        require(self, 0, "gamma", "alpha", "beta")
        require(self, 0.01, "temperature")


class Ssd(StoringMethod):
    """A generator trained against teacher and student fills a small buffer; priorities decide what is learned next."""

    needs = Needs()
    options_type = SsdOptions

    def __init__(self, setting: Setting, options: SsdOptions):
        spec = setting.teacher.spec
        self.buffer = ReplayBuffer(options.buffer_size, spec.size, spec.num_classes, setting.runtime.device)
        super().__init__(setting, options, self.buffer)
        self.alpha = options.alpha if options.priority else 0.0
        self.beta = options.beta if options.importance else 0.0
        self.quartiles = torch.linspace(0.0, 1.0, 5, device=setting.runtime.device)

    def filling(self) -> Filling:
        """Until the buffer is full and the generator warm."""
        batches = math.ceil(self.buffer.capacity / self.options.generator.batch_size)
        warm = super().filling()
        return warm._replace(rounds=max(batches, warm.rounds))

    def refresh(self, progress: float) -> Terms:
        """Trains the generator and puts its last batch into the buffer."""
        made = self.renew(self._modulation, float(self.ready(progress)), progress)
        confidence, classes = made.teacher_logits.float().softmax(dim=1).max(dim=1)
        discrepancy = losses.kl_div(self._student_logits(made), made.teacher_logits)
        phi = self._modulation(made.teacher_logits, made.labels)
        self.buffer.add(made.images, classes, confidence, discrepancy, self.options.eviction)
        return self.log_of(made) | {
            "synthesis/phi_quartiles": phi.quantile(self.quartiles),
            "buffer/class_shares": self.buffer.class_shares(),
        }

    def _modulation(self, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """phi with the probability of the class asked for, as in focal loss.

        With the largest probability instead, an image the teacher is sure belongs elsewhere gets no pull towards its
        label, and the generator ends up ignoring labels altogether (measured: hit rate from 1.0 to 0.0).
        """
        o = self.options
        probabilities = teacher_logits.float().softmax(dim=1)
        asked = probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
        return self.buffer.modulation(probabilities.argmax(dim=1), asked, o.gamma, o.diversity, o.difficulty)

    def _student_logits(self, made: Inverted) -> Tensor:
        if made.student_logits is not None:
            return made.student_logits
        with torch.no_grad(), self.setting.runtime.autocast():
            return self.setting.student(made.images)

    def sample(self) -> Batch:
        """Augmented images from the buffer, by priority."""
        index = self.buffer.draw(self.setting.batch_size, self.alpha, self.setting.rng)
        return Batch(self.setting.augment(self.buffer.read(index)), index=index)

    def student_loss(self, batch: Batch, progress: float) -> tuple[Terms, Terms]:
        """Importance-weighted KL; the images' priorities are renewed on the way (eqs. of delta and w).

        The weights stay as they are: divided by their largest, as arXiv:1511.05952 does, they halve the step.
        """
        if batch.index is None:
            raise ValueError("ssd learns from batches of its own buffer")
        teacher, student = self.setting.predict(batch.images)
        weights = self.buffer.weights[batch.index]
        kd = losses.kl_div(student, teacher, self.options.temperature)
        kl = losses.kl_div(student.detach(), teacher)
        self.buffer.update(batch.index, kl, self.alpha, self.beta)
        return {"kd": (weights * kd).mean()}, {
            "agreement": losses.agreement(student, teacher).mean(),
            "priority/discrepancy": self.buffer.discrepancy[: len(self.buffer)].mean(),
            "priority/weight": weights.mean(),
        }
