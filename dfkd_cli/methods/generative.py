"""What the methods that generate their images share: a generator, its loss for this teacher, and what is logged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dfkd_cli.config.values import require, require_share
from dfkd_cli.synthesis.batchnorm import BatchNormForm
from dfkd_cli.synthesis.inversion import Inversion, InversionWeights, Inverted, Modulation
from dfkd_cli.synthesis.synthesizer import GeneratorConfig, Objective, Synthesizer
from dfkd_cli.training.method import Filling, Method
from dfkd_cli.training.schedules import end_of_share, linear
from dfkd_cli.training.setting import Setting, Terms


@dataclass(frozen=True)
class GenerativeOptions:
    """The generator, its loss, and how long it trains before the student starts."""

    generator: GeneratorConfig
    weights: InversionWeights
    weights_without_batchnorm: InversionWeights
    bn_form: BatchNormForm
    bn_final: float  # share of the bn weight left at the end
    contested_only: bool  # adversarial term only where both networks still agree
    warmup_rounds: int  # renewals before the first student step
    warmup_share: float  # of a budget at most, after the first round

    def __post_init__(self) -> None:
        require(self, 0, "warmup_rounds")
        require_share(self, "warmup_share", "bn_final")


class GenerativeMethod(Method):
    """A method whose images come from a generator trained against the teacher."""

    def __init__(
        self,
        setting: Setting,
        options: GenerativeOptions,
        adversarial_temperature: float = 1.0,
        on_class_only: bool = False,
    ):
        super().__init__(setting, options)
        weights = options.weights
        if not setting.teacher.norm_statistics:
            weights = options.weights_without_batchnorm
            self.notes.append("The teacher has no BatchNorm layers: the bn term is dropped, the others are reweighted.")
        setting.expect(options.generator.batch_size)
        self.synthesizer = Synthesizer(setting, options.generator)
        self.inversion = Inversion(
            setting, weights, options.bn_form, options.contested_only, adversarial_temperature, on_class_only
        )
        self.rounds = 0
        self.first_done = 0.0  # progress after the first round, in which everything is compiled

    def ready(self, progress: float) -> bool:
        """Once the generator has had its rounds, or the time for them is used up.

        The first round does not count, unless it took more than that time. Something is always left for the student.
        """
        share = self.options.warmup_share
        begin = min(progress if self.rounds == 1 else self.first_done, share)
        late = self.rounds > 0 and progress >= end_of_share(begin, share)
        return late or self.rounds >= self.filling().rounds

    def filling(self) -> Filling:
        """As many rounds as the generator is given to warm up, and one at least."""
        return Filling(max(self.options.warmup_rounds, 1), self.options.warmup_share)

    def inverted(
        self, images: Tensor, labels: Tensor | None, modulate: Modulation, adversarial: float, progress: float
    ) -> Inverted:
        """A batch under the loss of this progress; `adversarial` is the share of that weight that counts now."""
        shares = {"adversarial": adversarial, "bn": linear(progress, 1.0, self.options.bn_final)}
        return self.inversion(images, labels, modulate, shares)

    def renew(self, modulate: Modulation, adversarial: float, progress: float) -> Inverted:
        """Trains the generator for one round under `inverted`'s loss and returns the last batch of it."""

        def objective(images: Tensor, labels: Tensor | None) -> Inverted:
            return self.inverted(images, labels, modulate, adversarial, progress)

        return self.one_round(self.synthesizer.renew, objective, progress)

    def one_round(
        self, update: Callable[[Objective, float], Inverted], objective: Objective, progress: float
    ) -> Inverted:
        """What `update`, of the synthesizer, makes under this objective; the round is counted."""
        if self.rounds == 1:
            self.first_done = progress
        made = update(objective, progress)
        self.rounds += 1
        return made

    def log_of(self, made: Inverted) -> Terms:
        """What to log of a generated batch: its weighted terms, the teacher's confidence and, when asked, obedience."""
        confidence, classes = made.teacher_logits.float().softmax(dim=1).max(dim=1)
        hits = {"synthesis/hit_rate": (classes == made.labels).float().mean()}
        return {f"synthesis/{name}": value for name, value in made.terms.items()} | {
            **(hits if self.options.generator.conditional else {}),
            "synthesis/confidence": confidence.mean(),
        }

    def remarks(self) -> list[str]:
        """That memory ran out over the generator's batches, if it did."""
        return self.synthesizer.parts.note("images are made")

    def fresh_images(self, count: int) -> Tensor:
        """New images of the generator, made for this call."""
        return self.synthesizer.images(count)

    def state_dict(self) -> dict[str, Any]:
        """The generator and the number of rounds; a method adds its own."""
        return {"synthesizer": self.synthesizer.state_dict(), "rounds": self.rounds, "first_done": self.first_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.synthesizer.load_state_dict(state["synthesizer"])
        self.rounds, self.first_done = state["rounds"], state["first_done"]
