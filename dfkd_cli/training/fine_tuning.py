"""The optimizer of a student that begins as the teacher: its steps do not depend on scales of the teacher."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dfkd_cli.training.muon import STEP_SIZE, VANISHED, Muon

TYPICAL_WEIGHTS = 0.1  # root mean square of weights whose steps in proportion are as large as steps that are not
SECOND_MOMENT = 0.999  # beta 2 of Adam
# Of the root mean square of all gradients; a bias before BatchNorm has a gradient of rounding errors only.
EPSILON = 1e-3


class FineTuningMuon(Muon):
    """Muon for `filters` and Adam (arXiv:1412.6980) for all other weights, with steps in proportion to the weights.

    BatchNorm hides the scale of the filters before it, so that a trained network can have any. Adam hides the scale of
    the gradient, which depends on the weights of the terms and on the network. Steps of vectors, such as biases and
    what BatchNorm learns, are not in proportion, because a vector can begin at 0. `lr` is that of all weights;
    `matrix_step` is the factor of matrices and grouped filters, which are not orthogonalised.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float,
        momentum: float,
        *,
        filter_decay: float,
        filters: list[nn.Parameter],
        matrix_step: float = STEP_SIZE,
    ):
        super().__init__(module, lr, momentum, 0.0, filter_lr=lr, filter_decay=filter_decay, filters=filters)
        self.matrix_step = matrix_step
        self.others = self.param_groups[0]
        self.others |= {"momentum": 0.0, "nesterov": False}  # the direction already contains the momentum

    def scaled(self, directions: Tensor, filters: Tensor) -> Tensor:
        """Return directions [N, A, B] in proportion to the root mean square of each of the filters [N, A, B]."""
        return directions * filters.square().mean(dim=(1, 2), keepdim=True).sqrt() / TYPICAL_WEIGHTS

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the weights. Replaces all gradients by the directions of the steps."""
        learned = [(weights, weights.grad) for weights in self.others["params"] if weights.grad is not None]
        moments = [self._moments(weights, gradient) for weights, gradient in learned]
        smallest = EPSILON * torch.stack([square.mean() for _, square in moments]).mean().sqrt() if moments else 0.0
        for (weights, gradient), (mean, square) in zip(learned, moments, strict=True):
            direction = mean / (square.sqrt() + smallest).clamp_min(VANISHED)
            if weights.dim() > 1:
                direction *= self.matrix_step / TYPICAL_WEIGHTS * weights.square().mean().sqrt()
            gradient.copy_(direction)
        return super().step(closure)

    def _moments(self, weights: nn.Parameter, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Update the moments of Adam and return them without their bias towards 0."""
        state = self.state[weights]
        if "step" not in state:
            state |= {"step": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1.0 - self.filter_momentum)
        square = state["square"].lerp_(gradient.square(), 1.0 - SECOND_MOMENT)
        return mean / (1.0 - self.filter_momentum ** state["step"]), square / (1.0 - SECOND_MOMENT ** state["step"])
