"""Explicit and implicit knowledge from selected unlabelled images: a reconstruction of EIKD (arXiv:2302.08771)."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from dfkd_cli.config.values import require
from dfkd_cli.pool.selection import SelectionConfig
from dfkd_cli.pool.source import PoolImages
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.distillation.embedding_loss import EmbeddingLoss, EmbeddingWeights
from dfkd_cli.training.method import Batch, Method, MethodDefinition, Needs, StudentLoss, StudentTerms
from dfkd_cli.training.setting import Setting


@dataclass(frozen=True)
class UnlabeledOptions:
    """The constants of the method; `docs/recipes.md` gives the source of each value."""

    selection: SelectionConfig
    embedding: EmbeddingWeights
    temperature: float
    kept_classes: int  # likeliest classes of each prediction that are used; all of them: plain distillation

    def __post_init__(self) -> None:
        require(self, 1, "kept_classes")
        require(self, 0.01, "temperature")


def build(setting: Setting, options: UnlabeledOptions) -> Method:
    """Return the selected images of the pool, and a student loss of predictions and embeddings."""
    return Method(PoolImages(setting, options.selection), KnowledgeLoss(setting, options))


class KnowledgeLoss(StudentLoss):
    """Class-dropped KL, the direction of the embedding, and distances and angles within a batch."""

    def __init__(self, setting: Setting, options: UnlabeledOptions):
        super().__init__()
        self.setting, self.options = setting, options
        self.embedding_loss = EmbeddingLoss(setting, options.embedding)
        if self.embedding_loss.projection is None:
            self.notes.append("The embedding is not visible: the explicit and implicit terms are left out, kd remains.")

    def modules(self) -> Iterable[nn.Module]:
        """Return the projection of the student's embedding, if there is one."""
        return [module for module in [self.embedding_loss.projection] if module is not None]

    def follow_student(self) -> None:
        """Give the projection the size of the student's embedding."""
        self.embedding_loss.follow_student()

    def compute(self, batch: Batch, progress: float) -> StudentTerms:
        """Return the term `kd` and, for visible embeddings, `explicit`, `distance` and `angle`."""
        o = self.options
        teacher, student = self.setting.observe(batch.images)
        kd = losses.class_dropped_kl(student.logits, teacher.logits, o.kept_classes, o.temperature)
        return StudentTerms(
            {"kd": kd.mean(), **self.embedding_loss(student, teacher, progress)},
            {
                "agreement": losses.agreement(student.logits, teacher.logits).mean(),
                "class_drop/mass": losses.dropped_mass(teacher.logits, o.kept_classes).mean(),
            },
        )


UNLABELED = MethodDefinition(UnlabeledOptions, build, Needs(pool=True))
