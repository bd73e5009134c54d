"""The generator's terms that the inversion methods share: their weights, and the list that a teacher allows."""

from dataclasses import dataclass, fields

from dfkd_cli.config.values import require, require_share
from dfkd_cli.synthesis import terms
from dfkd_cli.synthesis.batchnorm import BatchNormForm
from dfkd_cli.synthesis.terms import Modulation, Share, Term, equally
from dfkd_cli.training.schedules import linear
from dfkd_cli.training.setting import Setting


@dataclass(frozen=True)
class InversionWeights:
    """The weight of each term in the generator's loss; 0 switches a term off and saves its cost."""

    bn: float = 0.0  # distance to the BatchNorm statistics
    class_prior: float = 0.0  # cross-entropy of the teacher against the label
    adversarial: float = 0.0  # disagreement of student and teacher
    balance: float = 0.0  # entropy of the batch's mean prediction
    activation: float = 0.0  # size of the teacher's embedding
    total_variation: float = 0.0  # roughness of the images

    def __post_init__(self) -> None:
        require(self, 0, *(weight.name for weight in fields(self)))


@dataclass(frozen=True)
class InversionConfig:
    """The generator's loss for teachers with and without BatchNorm."""

    weights: InversionWeights
    weights_without_batchnorm: InversionWeights
    bn_form: BatchNormForm
    bn_final: float  # share of the bn weight that is left at the end
    contested_only: bool  # adversarial term only where both networks predict the same class
    adversarial_cap: float | None = None  # largest disagreement of an answer that counts, in nats; None: any

    def __post_init__(self) -> None:
        require_share(self, "bn_final")
        if self.adversarial_cap is not None:
            require(self, 0, "adversarial_cap")

    def notes(self, setting: Setting) -> list[str]:
        """Return one sentence when the teacher has no BatchNorm layers."""
        if setting.teacher.norm_statistics:
            return []
        return ["The teacher has no BatchNorm layers: the bn term is dropped, and the other terms have other weights."]


def inversion_terms(
    setting: Setting,
    config: InversionConfig,
    *,
    modulation: Modulation = equally,
    on_class_only: bool = False,
    adversarial_temperature: float = 1.0,
    adversarial_share: Share | None = None,
) -> list[Term | None]:
    """Return the six terms of model inversion with the weights that the recipe has for this teacher."""
    weights = config.weights if setting.teacher.norm_statistics else config.weights_without_batchnorm
    final = config.bn_final
    return [
        terms.batchnorm(setting, weights.bn, config.bn_form, None if final == 1.0 else lambda p: linear(p, 1.0, final)),
        terms.class_prior(weights.class_prior, modulation),
        terms.adversarial(
            weights.adversarial,
            contested_only=config.contested_only,
            on_class_only=on_class_only,
            temperature=adversarial_temperature,
            share=adversarial_share,
            cap=config.adversarial_cap,
        ),
        terms.balance(setting, weights.balance),
        terms.activation(setting, weights.activation),
        terms.total_variation(weights.total_variation),
    ]
