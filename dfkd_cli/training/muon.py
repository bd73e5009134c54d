"""Muon for small convolutional networks: SGD with orthogonalised steps for convolution filters."""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Of the quintic iteration, chosen by its author for fast growth of small singular values. Results lie in [0.7, 1.2].
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
VANISHED = 1e-12  # gradients far below have no direction: their squares are 0 in single precision
STEP_SIZE = 0.2  # root mean square over a filter of a step at rate 1, similar to Adam's (sec. 2.2)


class Muon(torch.optim.SGD):
    """SGD with Nesterov momentum; the momentum of `filters` is orthogonalised (arXiv:2502.16982).

    A step moves a filter of A channels by B weights by rate * 0.2 * sqrt(max(A, B)) times an orthogonal matrix and
    multiplies it by 1 - rate * decay. `torch.optim.Muon` and timm's Muon are not used because they compute in bfloat16,
    which is up to sixty times slower on a processor without it (measured); torch's also rejects filters.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float,
        momentum: float,
        weight_decay: float,
        *,
        filter_lr: float,
        filter_decay: float,
        filters: list[nn.Parameter],
    ):
        known = set(map(id, filters))
        others = [parameter for parameter in module.parameters() if id(parameter) not in known]
        nesterov = momentum > 0.0
        plain = {"momentum": 0.0, "nesterov": False}  # the direction already contains the momentum
        of_filters = {"params": filters, "lr": filter_lr, "weight_decay": filter_decay, **plain}
        super().__init__([{"params": others}, of_filters], lr, momentum, weight_decay=weight_decay, nesterov=nesterov)
        self.filter_momentum = momentum
        self.stacks: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)  # filters of one shape
        for weights in filters:
            self.stacks[(len(weights), weights[0].numel())].append(weights)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the weights. Replaces the gradients of filters by the directions of their steps."""
        for shape, stack in self.stacks.items():
            learned = [(weights, weights.grad) for weights in stack if weights.grad is not None]
            if not learned:
                continue
            ahead = [self._look_ahead(weights, gradient).flatten(1) for weights, gradient in learned]
            directions = STEP_SIZE * max(shape) ** 0.5 * orthogonal(torch.stack(ahead))
            directions = self.scaled(directions, torch.stack([weights.flatten(1) for weights, _ in learned]))
            for (_, gradient), direction in zip(learned, directions, strict=True):
                gradient.copy_(direction.view_as(gradient))
        return super().step(closure)

    def scaled(self, directions: Tensor, filters: Tensor) -> Tensor:
        """Return the directions of steps at rate 1 for filters of one shape, both [N, A, B]."""
        return directions

    def _look_ahead(self, weights: nn.Parameter, gradient: Tensor) -> Tensor:
        """Update the momentum of these weights and return Nesterov's form of it."""
        state = self.state[weights]
        if "moment" not in state:
            state["moment"] = torch.zeros_like(gradient)
        moment = state["moment"].mul_(self.filter_momentum).add_(gradient)
        return torch.add(gradient, moment, alpha=self.filter_momentum)


def find_filters(module: nn.Module) -> list[nn.Parameter]:
    """Return the weights of all convolutions without groups, whose filters form one matrix per layer.

    Computed weights, such as those of weight normalisation, are left out: the parameters behind them are trained.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, CONVOLUTIONS) and layer.groups == 1]
    weights = dict.fromkeys(layer.weight for layer in layers)  # layers may share a weight
    return [parameter for parameter in weights if isinstance(parameter, nn.Parameter)]


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices with singular values of about 1, by the Newton-Schulz iteration: [N, A, B] -> the same shape.

    Singular values far below the largest one stay below 1; a matrix of zeros stays zero. The iteration multiplies
    polynomials of the Gram matrix of the smaller side, which is three times faster for large filters than iterating
    on the matrix itself (measured); the results differ by 1e-5.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp_min(VANISHED)
    gram = wide @ wide.mT
    identity = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    product = identity.expand_as(gram)
    for _ in range(ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c) + a * identity
        product = factor @ product
        gram = factor @ gram @ factor
    result = product @ wide
    return result.mT if tall else result
