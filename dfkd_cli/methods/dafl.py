"""DAFL: class prior, activation and balance; no memory and no adversarial term (arXiv:1904.01186)."""

from dataclasses import dataclass

from dfkd_cli.config.values import require
from dfkd_cli.synthesis import terms
from dfkd_cli.synthesis.generator_loss import GeneratorLoss
from dfkd_cli.synthesis.memory import NoMemory
from dfkd_cli.synthesis.source import GeneratedImages
from dfkd_cli.synthesis.trainer import GeneratorConfig, GeneratorTrainer
from dfkd_cli.synthesis.warmup import Warmup, WarmupConfig
from dfkd_cli.training.distillation.logits import LogitLoss
from dfkd_cli.training.method import Method, MethodDefinition
from dfkd_cli.training.setting import Setting


@dataclass(frozen=True)
class DaflWeights:
    """The weight of each term in the generator's loss (eq. 7)."""

    class_prior: float  # cross-entropy against the teacher's own prediction
    activation: float  # size of the teacher's embedding
    balance: float  # entropy of the batch's mean prediction

    def __post_init__(self) -> None:
        require(self, 0, "class_prior", "activation", "balance")


@dataclass(frozen=True)
class DaflOptions:
    """The constants of the method."""

    generator: GeneratorConfig
    weights: DaflWeights
    warmup: WarmupConfig
    temperature: float

    def __post_init__(self) -> None:
        require(self, 0.01, "temperature")


def build(setting: Setting, options: DaflOptions) -> Method:
    """Return a generator without memory, and the student loss of plain distillation."""
    weights = options.weights
    trainer = GeneratorTrainer(setting, options.generator)
    chosen = [
        terms.class_prior(weights.class_prior),
        terms.activation(setting, weights.activation),
        terms.balance(setting, weights.balance),
    ]
    source = GeneratedImages(trainer, GeneratorLoss(setting, chosen), Warmup(options.warmup), NoMemory(trainer))
    return Method(source, LogitLoss(setting, options.temperature))


DAFL = MethodDefinition(DaflOptions, build)
