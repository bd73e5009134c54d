"""The student loss of plain distillation: the teacher's softened predictions."""

from dfkd_cli.training.distillation import losses
from dfkd_cli.training.method import Batch, StudentLoss, StudentTerms
from dfkd_cli.training.setting import Setting


class LogitLoss(StudentLoss):
    """KL divergence between the softened predictions of teacher and student (arXiv:1503.02531)."""

    def __init__(self, setting: Setting, temperature: float):
        super().__init__()
        self.setting, self.temperature = setting, temperature

    def compute(self, batch: Batch, progress: float) -> StudentTerms:
        """Return the term `kd`, and the agreement of both networks."""
        teacher, student = self.setting.predict(batch.images)
        kd = losses.kl_div(student, teacher, self.temperature)
        return StudentTerms({"kd": kd.mean()}, {"agreement": losses.agreement(student, teacher).mean()})
