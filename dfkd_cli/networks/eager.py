"""A network that is Python code: timm models, students, one's own modules."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dfkd_cli.networks.base import Network, NormStatistics, Outputs
from dfkd_cli.networks.forward_error import failed_forward
from dfkd_cli.networks.modes import evaluating
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.norm_layers import NormLayers
from dfkd_cli.networks.operation_log import OperationLog, as_embedding
from dfkd_cli.networks.operations import FUNCTION_MULTIPLICATIONS
from dfkd_cli.networks.outputs import pick_logits


class EagerNetwork(Network):
    """Any nn.Module that maps normalised images to logits; trainable, with the module itself in `.module`."""

    def __init__(
        self,
        module: nn.Module,
        output: str | None = None,
        *,
        input_size: tuple[int, int, int] | None = None,
        num_classes: int | None = None,
    ):
        """With `input_size` (C, H, W), one forward determines the order of the BatchNorm calls.

        Without it the order of registration is used, which is the same in networks that run from top to bottom and
        use each layer once. Raises ForwardError when that forward fails.
        """
        super().__init__()
        self.module = module.float()  # images are single precision, modules can be half or double
        self._output = output
        self._num_classes = num_classes
        self._other_norms = [layer for layer in module.modules() if _is_other_norm(layer)]
        calls = _registered_norms(module) if input_size is None else self._called_norms(input_size)
        self._norm_layers = NormLayers(self, calls)

    @property
    def norm_statistics(self) -> tuple[NormStatistics, ...]:
        """Running statistics per BatchNorm call; layers without running statistics are left out."""
        return self._norm_layers.read()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits [B, K] of normalised images [B, C, H, W]."""
        return pick_logits(self.module(inputs), inputs.shape[0], self._output, self._num_classes)

    def observe(self, inputs: Tensor) -> Outputs:
        """Return the `Outputs` of the same forward."""
        recorder = _Recorder(inputs.shape[0])
        with recorder, recorder.hooked(self._other_norms):
            returned = self.module(inputs)
        logits = pick_logits(returned, inputs.shape[0], self._output, self._num_classes)
        classifier = recorder.log.classifier_input(logits)
        return Outputs(
            logits=logits,
            norm_inputs=tuple(recorder.norm_inputs),
            embedding=None if classifier is None else as_embedding(classifier.tensor),
            stages=tuple(stage.tensor for stage in recorder.log.stages()),
        )

    def _called_norms(self, input_size: tuple[int, int, int]) -> list[tuple[Tensor, Tensor]]:
        recorder = _Recorder(batch=2)  # without running statistics, BatchNorm of one pixel needs two images
        with evaluating(self.module), recorder, recorder.hooked(self._other_norms):
            try:
                self.module(noise(self, 2, input_size))
            except Exception as error:  # a network from outside can raise anything
                raise failed_forward(input_size, error) from error
        return recorder.norm_statistics


class _Recorder(TorchFunctionMode):
    """Records every torch function called in its `with` block, functional BatchNorm included.

    Preferred to forward hooks: nothing is attached to the module, and torch.compile traces it without a graph break.
    """

    def __init__(self, batch: int):
        super().__init__()
        self.log = OperationLog(batch)
        self.norm_inputs: list[Tensor] = []
        self.norm_statistics: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.batch_norm:
            self._add_norm(args[0], *args[1:3])
        elif func is torch.batch_norm:
            self._add_norm(args[0], *args[3:5])
        if isinstance(result, Tensor):
            kind, position = FUNCTION_MULTIPLICATIONS.get(func, ("", 0))
            source = args[position] if kind and len(args) > position else None
            self.log.add(kind, source, result)
        return result

    def _add_norm(self, norm_input: Tensor, mean: Tensor | None, var: Tensor | None) -> None:
        if mean is not None and var is not None:
            self.norm_inputs.append(norm_input)
            self.norm_statistics.append((mean, var))

    @contextmanager
    def hooked(self, norms: list[nn.Module]) -> Iterator[None]:
        """Record the inputs of `norms` even where they compute BatchNorm as a product and a sum."""
        counts_before: list[int] = []

        def before(layer, args):
            counts_before.append(len(self.norm_inputs))

        def after(layer, args, result):
            called_batchnorm = len(self.norm_inputs) > counts_before.pop()
            if not called_batchnorm and _has_channels(args, len(layer.running_mean)):
                self._add_norm(args[0], layer.running_mean, layer.running_var)

        hooks = [
            hook
            for layer in norms
            for hook in (layer.register_forward_pre_hook(before), layer.register_forward_hook(after))
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _has_channels(args: tuple, count: int) -> bool:
    """Return whether the first argument of a layer is [B, `count`, ...]; its statistics can be of another tensor."""
    first = args[0] if args else None
    return isinstance(first, Tensor) and first.ndim > 1 and first.shape[1] == count


def _running_statistics(layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return the layer's running mean and variance, each [C], or None when it has none."""
    mean, var = getattr(layer, "running_mean", None), getattr(layer, "running_var", None)
    if isinstance(mean, Tensor) and isinstance(var, Tensor) and mean.ndim == var.ndim == 1:
        return mean, var
    return None


def _is_other_norm(layer: nn.Module) -> bool:
    """Return whether the layer has running statistics but is not PyTorch's, such as a library's frozen BatchNorm.

    TorchScript modules do not count: they take no hooks, and a function mode does not record what they compute.
    """
    others = not isinstance(layer, (nn.modules.batchnorm._NormBase, torch.jit.ScriptModule))
    return others and _running_statistics(layer) is not None


def _registered_norms(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    batchnorm = nn.modules.batchnorm._BatchNorm
    layers = [layer for layer in module.modules() if isinstance(layer, batchnorm) or _is_other_norm(layer)]
    return [statistics for layer in layers if (statistics := _running_statistics(layer)) is not None]
