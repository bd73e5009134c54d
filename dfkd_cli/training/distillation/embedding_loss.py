"""Loss terms of the embedding: its direction (explicit), and distances and angles within a batch (implicit)."""

from dataclasses import dataclass

from torch import Tensor

from dfkd_cli.config.values import require, require_share
from dfkd_cli.training.distillation import losses
from dfkd_cli.training.distillation.projection import embedding_size, make_projection
from dfkd_cli.training.schedules import ramp
from dfkd_cli.training.setting import Features, Setting, Terms


@dataclass(frozen=True)
class EmbeddingWeights:
    """The weight of each term; 0 switches it off."""

    explicit: float  # direction of the projected embedding
    distance: float  # implicit: distances between the images of a batch
    angle: float  # implicit: angles between them
    relation_images: int  # images of a batch that the implicit terms use; their cost is cubic in it
    relation_warmup: float  # share of the training over which the implicit terms grow from 0

    def __post_init__(self) -> None:
        require(self, 0, "explicit", "distance", "angle")
        require_share(self, "relation_warmup")
        require(self, 3, "relation_images")  # an angle has three corners


class EmbeddingLoss:
    """The weighted terms for one teacher and student.

    `projection` is trained in the same step as the student. It is None when an embedding is not visible.
    """

    def __init__(self, setting: Setting, weights: EmbeddingWeights):
        self.setting, self.weights, self.world = setting, weights, setting.runtime.world
        self.projection = make_projection(setting.student, setting.teacher)

    def follow_student(self) -> None:
        """Make a new projection if the student's embedding has another size by now."""
        if self.projection is not None and embedding_size(self.setting.student) != self.projection.in_features:
            self.projection = make_projection(self.setting.student, self.setting.teacher)

    def __call__(self, student: Features, teacher: Features, progress: float) -> Terms:
        """Return those of the terms `explicit`, `distance` and `angle` that have a weight, for one batch."""
        if self.projection is None or student.embedding is None or teacher.embedding is None:
            return {}
        terms: Terms = {}
        if self.weights.explicit:
            projected = self.projection(student.embedding.float())
            terms["explicit"] = self.weights.explicit * losses.cosine_distance(projected, teacher.embedding).mean()
        if self.weights.distance or self.weights.angle:
            terms |= self._relations(student.embedding, teacher.embedding, progress)
        return terms

    def _relations(self, student: Tensor, teacher: Tensor, progress: float) -> Terms:
        # As many of each process; the order of a batch is random.
        related = slice(-(-self.weights.relation_images // self.world.size))
        own, target = (self.world.gather(one[related]).flatten(0, 1) for one in (student, teacher))
        distance, angle = losses.relations(own, target)
        grown = ramp(progress, self.weights.relation_warmup)
        terms = {"distance": (self.weights.distance, distance), "angle": (self.weights.angle, angle)}
        return {name: grown * weight * value for name, (weight, value) in terms.items() if weight}
