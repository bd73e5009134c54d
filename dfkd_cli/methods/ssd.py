"""SSD-KD: few synthetic images, balanced in class and difficulty, sampled by priority (arXiv:2406.07876)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dfkd_cli.config.values import require
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.networks.pixels import per_image
from dfkd_cli.synthesis.buffer import BufferConfig, ReplayBuffer
from dfkd_cli.synthesis.dense_buffer import DenseReplayBuffer, Rarity
from dfkd_cli.synthesis.generator_loss import Generated, GeneratorLoss
from dfkd_cli.synthesis.inversion import InversionConfig, inversion_terms
from dfkd_cli.synthesis.source import GeneratedImages, RoundMeasure
from dfkd_cli.synthesis.terms import Modulation
from dfkd_cli.synthesis.trainer import GeneratorConfig, GeneratorTrainer
from dfkd_cli.synthesis.warmup import Warmup, WarmupConfig
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.method import Batch, Method, MethodDefinition, StudentLoss, StudentTerms
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class SsdOptions:
    """The constants of the method; `docs/recipes.md` gives the source of each value."""

    generator: GeneratorConfig
    inversion: InversionConfig
    warmup: WarmupConfig
    buffer: BufferConfig
    diversity: bool  # first factor of phi
    difficulty: bool  # second factor of phi
    gamma: float  # exponent of the difficulty
    priority: bool  # sample by priority; off: uniformly
    alpha: float  # exponent of the priorities
    smoothing: float  # share of an image's earlier discrepancy that stays when it is drawn again
    importance: bool  # importance weights, which correct the bias of the sampling
    beta: float  # exponent of the importance weights
    temperature: float
    rarity: Rarity = "complement"  # form of the first factor of phi, for segmentation networks
    void_class: int | None = None  # class that no image is made for, for segmentation networks

    def __post_init__(self) -> None:
        require(self, 0, "gamma", "alpha", "beta")
        require(self, 0, "smoothing", at_most=0.99)
        require(self, 0.01, "temperature")


def build(setting: Setting, options: SsdOptions) -> Method:
    """Return a generator with a replay buffer that is balanced by phi, and an importance-weighted student loss."""
    trainer = GeneratorTrainer(setting, options.generator)
    kind = ReplayBuffer
    if setting.teacher.spec.task == "segmentation":
        _check_void_class(options.void_class, setting.teacher.spec)
        kind = partial(DenseReplayBuffer, rarity=options.rarity)
    buffer = kind(
        options.buffer,
        trainer.spec,
        setting.runtime.device,
        alpha=options.alpha if options.priority else 0.0,
        beta=options.beta if options.importance else 0.0,
        smoothing=options.smoothing,
        world=setting.runtime.world,
    )
    phi = partial(modulation, buffer, options)
    batches = math.ceil(buffer.capacity / trainer.batch_size)
    source = GeneratedImages(
        trainer,
        GeneratorLoss(
            setting, inversion_terms(setting, options.inversion, modulation=phi), void_class=options.void_class
        ),
        Warmup(options.warmup, at_least=batches),
        buffer,
        measure=PhiQuartiles(phi, setting.runtime.device),
        notes=[*options.inversion.notes(setting), *options.buffer.notes(trainer.spec)],
    )
    return Method(source, ImportanceWeightedLoss(setting, buffer, options.temperature))


def _check_void_class(number: int | None, spec: InputSpec) -> None:
    """Raise UsageError when there is no such class."""
    if number is not None and not 0 <= number < spec.num_classes:
        raise UsageError(f"options.void_class is {number}; the teacher has the classes 0 to {spec.num_classes - 1}")


def modulation(buffer: ReplayBuffer, options: SsdOptions, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return phi with the probability of the label, as in focal loss: [B, K], [B] -> [B], or a value per pixel.

    With the largest probability instead, an image that the teacher assigns to another class with high confidence has
    no gradient towards its label, and the generator ignores the labels (measured: hit rate from 1.0 to 0.0).
    """
    probabilities = teacher_logits.float().softmax(dim=1)
    of_label = probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
    classes = probabilities.argmax(dim=1)
    return buffer.modulation(classes, of_label, options.gamma, options.diversity, options.difficulty)


class PhiQuartiles(RoundMeasure):
    """The quartiles of phi over the last batch of a round."""

    def __init__(self, phi: Modulation, device: torch.device):
        self.phi = phi
        self.quartiles = torch.linspace(0.0, 1.0, 5, device=device)

    def __call__(self, generated: Generated) -> Terms:
        """Return the quartiles and both extremes [5]."""
        phi = per_image(self.phi(generated.teacher_logits, generated.labels))
        return {"synthesis/phi_quartiles": phi.quantile(self.quartiles)}


class ImportanceWeightedLoss(StudentLoss):
    """KL divergence with the importance weights of the buffer, whose priorities are updated after each step.

    The weights are not divided by the largest one, unlike in arXiv:1511.05952, because that halves the step.
    """

    def __init__(self, setting: Setting, buffer: ReplayBuffer, temperature: float):
        super().__init__()
        self.setting, self.buffer, self.temperature = setting, buffer, temperature

    def compute(self, batch: Batch, progress: float) -> StudentTerms:
        """Return the term `kd`; per image the KL at temperature 1."""
        if batch.index is None:
            raise ValueError("ssd needs batches of its buffer")
        teacher, student = self.setting.predict(batch.images)
        weights = self.buffer.weights[batch.index]
        kd = losses.kl_div(student, teacher, self.temperature)
        return StudentTerms(
            {"kd": (weights * kd).mean()},
            {"agreement": losses.agreement(student, teacher).mean(), "priority/weight": weights.mean()},
            {"kl": losses.kl_div(student.detach(), teacher)},
        )

    def after_step(self, batch: Batch, per_image: Mapping[str, Tensor]) -> Terms:
        """Update the priorities of the batch (equations of delta and w)."""
        if batch.index is None:
            raise ValueError("ssd needs batches of its buffer")
        self.buffer.update(batch.index, per_image["kl"])
        return {"priority/discrepancy": self.buffer.known_discrepancy().mean()}


SSD = MethodDefinition(SsdOptions, build)
