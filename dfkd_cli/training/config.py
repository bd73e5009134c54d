"""The values of a recipe's section `train`."""

from dataclasses import dataclass
from typing import Literal

from dfkd_cli.config.values import require, require_share
from dfkd_cli.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class TrainConfig(OptimizerConfig):
    """How a student is trained, whatever the method."""

    steps: int  # of the student
    budget: float | None  # seconds for the whole run; replaces `steps`
    compile: Literal["auto", "on", "off"]  # torch.compile; auto: in runs long enough to gain from it
    init: Literal["teacher", "random"]  # initial weights: the teacher's, in layers of equal name and shape
    batch_size: int  # of all processes together
    sync_batchnorm: bool  # whether BatchNorm statistics of a batch are those of all processes
    lr_warmup: float  # share of the training in which the learning rate grows from 0
    average: float  # share of the steps, up to the current one, over which weights are averaged; 0: the last weights
    round_every: int  # student steps between two rounds
    stages: float  # weight of the stages that a student by name shares with the teacher in shape; 0: no such term
    stages_until: float  # progress at which the weight of the stages has fallen to 0
    report_every: int  # steps and rounds between two events

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0, "stages")
        require(self, 1, "steps", "round_every", "report_every")
        require(self, 2, "batch_size")  # BatchNorm statistics need two images
        require_share(self, "lr_warmup", "average", "stages_until")
        if self.budget is not None:
            require(self, 1, "budget")
