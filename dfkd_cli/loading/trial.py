"""Trial forwards of one network on noise of several shapes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_cli.errors import DfkdError
from dfkd_cli.networks.base import Network
from dfkd_cli.networks.check import forward_on_noise
from dfkd_cli.networks.forward_error import ForwardError
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.outputs import pick_logits
from dfkd_cli.networks.tasks import TASKS, Task, TaskName, task_of

Shape = tuple[int, ...]  # of one input, usually (C, H, W)

_BATCH = 2
_PROPORTIONS = 1.5  # of maps and images can differ by less: strides round their lengths
_USUAL_CHANNELS = (3, 1)  # tried where no convolution shows them


class Trial:
    """Tells which shapes a network accepts.

    Attributes:
        refusal: The first error that no other shape changes, such as a choice among outputs; None without one.
        failure: A forward that failed, preferably one that was complete and returned something else than logits.
    """

    def __init__(
        self,
        module: Any,
        network_class: Callable[..., Network],
        output: str | None,
        classes: int | None,
        task: TaskName | None = None,
    ):
        """`task` is that of `--task`; None: any."""
        self.module = module
        self.tasks = list(TASKS.values()) if task is None else [TASKS[task]]
        self._network_class = network_class
        self._output = output
        self._classes = classes
        self.refusal: DfkdError | None = None
        self.failure: ForwardError | None = None
        if isinstance(module, nn.Module):
            module.float()  # images are single precision, modules can be half or double

    def make_network(self, shape: Shape) -> Network:
        """Return the network for inputs of `shape`; raises what its class raises."""
        return self._network_class(self.module, self._output, input_size=shape, num_classes=self._classes)

    def channels(self) -> list[int]:
        """Return the likely numbers of channels, the likeliest first: that of the first convolution, 3 and 1."""
        module = self.module
        weights = module.state_dict().values() if isinstance(module, nn.Module) else module.state_dict.values()
        first = next(([weight.shape[1]] for weight in weights if isinstance(weight, Tensor) and weight.ndim == 4), [])
        return list(dict.fromkeys([*first, *_USUAL_CHANNELS]))

    @torch.no_grad()
    def quick(self, shape: Shape, task: Task | None = None) -> bool:
        """Return whether the module itself gives finite logits of the shape of a task; True implies `built`."""
        if not isinstance(self.module, nn.Module):
            return self.built(shape, task)
        try:
            images = torch.randn(_BATCH, *shape, generator=torch.Generator().manual_seed(0))
            logits = pick_logits(self.module(images), _BATCH, self._output, self._classes)
        except Exception:  # a network from outside can raise anything for a shape that it does not accept
            return False
        return _usable(logits, shape, task)

    @torch.no_grad()
    def built(self, shape: Shape, task: Task | None = None) -> bool:
        """Return the same for the network that is made for this shape, and keep the error otherwise."""
        try:
            network = self.make_network(shape)
            logits, _ = forward_on_noise(network, noise(network, _BATCH, shape))
            return _usable(logits, shape, task)
        except ForwardError as error:
            if self.failure is None or (error.ran and not self.failure.ran):
                self.failure = error
        except DfkdError as error:
            self.refusal = self.refusal or error
        except Exception:  # as above
            return False
        return False


def _usable(logits: Tensor, shape: Shape, task: Task | None) -> bool:
    """Return whether the logits are finite and have the shape of this or, with None, any task for inputs of `shape`.

    Maps of other proportions than the image are no answers per pixel: a linear layer on the last axis gives them.
    """
    fits = task_of(logits, _BATCH) is not None if task is None else task.accepts(logits, _BATCH)
    if not fits or not torch.isfinite(logits).all():
        return False
    if logits.ndim == 2:
        return True
    (height, width), (rows, columns) = logits.shape[2:], shape[-2:]
    return len(shape) == 3 and 1 / _PROPORTIONS < (height / rows) / (width / columns) < _PROPORTIONS
