"""A student that begins as the teacher and loses channels while it learns."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.narrowing.blocks import block_error
from dfkd_cli.narrowing.config import NarrowingConfig
from dfkd_cli.narrowing.gates import Gates
from dfkd_cli.narrowing.layers import narrowed
from dfkd_cli.narrowing.plan import NarrowingPlan, shrink
from dfkd_cli.narrowing.refitting import refit
from dfkd_cli.networks.classifier import Classifier
from dfkd_cli.training.reshaping import Reshaping
from dfkd_cli.training.setting import Terms
from dfkd_cli.training.taps import Taps

SMALL_IMAGES, LARGE_IMAGES = 1024, 64  # images of at most 32x32 pixels, and of many pixels, for new weights
SMALL_BATCH = 128  # images of 32x32 pixels that are computed at once for new weights, where batches are smaller


class Narrowing(Reshaping):
    """Fades the planned channels of `student` out and removes them; `student` and `teacher` are the same network.

    `taps` records the outputs of the blocks that both share.
    """

    def __init__(
        self,
        teacher: Classifier,
        student: Classifier,
        plan: NarrowingPlan,
        config: NarrowingConfig,
        world: World = ALONE,
    ):
        self.plan, self.config, self.student, self.teacher, self.world = plan, config, student, teacher, world
        self.rate = config.rate
        self.blocks = plan.blocks  # on the device of the student since the first step
        self.taps = Taps([shared.layer for shared in plan.blocks] if config.blocks else ())
        self.taps.attach(_module(teacher))
        self.whole = copy.deepcopy(_module(student))  # to go back to, when a run returns to an earlier checkpoint
        self.removed = False
        self.faded = 0.0  # progress of the factors
        self._attach()

    def _attach(self) -> None:
        module = _module(self.student)
        self.taps.attach(module)
        self.gates = Gates(module, self.plan.structure, self.plan.removal, self.config.overlap)

    def fade(self, learned: float) -> None:
        """Set the factors of the channels; `learned` is the share of the student's training done, in [0, 1]."""
        self.faded = learned
        if not self.removed:
            self.gates.set(learned / self.config.fade if self.config.fade else 1.0)

    def due(self, learned: float) -> bool:
        """Return whether all channels have faded out and are still there."""
        return not self.removed and learned >= self.config.fade

    def remove(self) -> None:
        """Remove the channels from the student, in place."""
        self.gates.remove()
        shrink(_module(self.student), self.plan.gone)
        self.removed = True

    def images_to_refit(self) -> int:
        """Return how many images `refit` learns from: fewer large ones, because each has more positions."""
        if not self.config.refit:
            return 0
        return min(max(self._of_size(SMALL_IMAGES), LARGE_IMAGES), SMALL_IMAGES)

    def refit(self, batches: Sequence[Tensor]) -> None:
        """Fit the weights that read removed channels to the teacher's features."""
        if batches:
            images = (torch.cat(list(batches)) - self.student.mean) / self.student.std
            parts = images.split(max(len(batches[0]), self._of_size(SMALL_BATCH)))
            structure = self.plan.structure
            refit(_module(self.teacher), _module(self.student), self.plan.gone, structure.calls, parts, self.world)

    def _of_size(self, images: int) -> int:
        """Return how many of the student's images have as many pixels as these images of 32x32."""
        return images * 1024 // math.prod(self.student.spec.size[1:])

    def narrowed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors by the names of the whole student's state dict without the removed channels."""
        prefix = "network.module."
        own = narrowed(self.whole, {name.removeprefix(prefix): value for name, value in values.items()}, self.plan.gone)
        return {prefix + name: value for name, value in own.items()}

    def terms(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], learned: float) -> Terms:
        """Return the weighted term `blocks` of recorded outputs, whose weight is constant; nothing without a block."""
        if not student:
            return {}
        if self.blocks is self.plan.blocks:
            self.blocks = tuple(shared.to(student[0].device) for shared in self.plan.blocks)
        return {"blocks": self.config.blocks * block_error(self.blocks, student, teacher, self.world)}

    def state_dict(self) -> dict[str, Any]:
        """Return whether the channels are removed, which decides the sizes of tensors, and how far they have faded."""
        return {"removed": self.removed, "faded": self.faded}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give the student the shape of the checkpoint."""
        if self.removed and not state["removed"]:
            self._restore()
        if state["removed"] and not self.removed:
            self.remove()
        self.fade(state["faded"])

    def _restore(self) -> None:
        device = self.student.mean.device
        network: Any = self.student.network
        network.module = copy.deepcopy(self.whole).to(device)
        self.removed = False
        self._attach()


def _module(classifier: Classifier) -> nn.Module:
    return classifier.network.get_submodule("module")
