"""A network that is a TorchScript archive, traced or scripted."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._fuser import optimized_execution

from dfkd_cli.errors import DfkdError
from dfkd_cli.networks.base import Network, NormStatistics, Outputs
from dfkd_cli.networks.fixed_batch import find_batch_size, forward_in_pieces, observe_in_pieces
from dfkd_cli.networks.forward_error import error_line
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.norm_layers import NormLayers
from dfkd_cli.networks.operation_log import OperationLog, as_embedding
from dfkd_cli.networks.outputs import pick_logits
from dfkd_cli.networks.torchscript.evaluation import ScriptGraph, evaluation_graph
from dfkd_cli.networks.torchscript.graph import (
    NODE_MULTIPLICATIONS,
    NODE_NORMS,
    Graph,
    Tap,
    creates_tensor,
    has_statistics,
    leading_lengths,
    tap,
    walk,
)
from dfkd_cli.networks.torchscript.recording import Recording, record


class ScriptNetwork(Network):
    """A frozen TorchScript archive, always in evaluation mode."""

    def __init__(
        self,
        module: torch.jit.ScriptModule,
        output: str | None = None,
        *,
        input_size: tuple[int, int, int],
        num_classes: int | None = None,
    ):
        """`input_size` is (C, H, W).

        Raises ForwardError when forward fails on it, and TeacherError when it works only for too small batches.
        """
        super().__init__()
        self.module = module.eval()
        for parameter in module.parameters():  # ScriptModules have no requires_grad_ of their own
            parameter.requires_grad_(False)
        self._input_size = input_size
        self._output = output
        self._num_classes = num_classes
        self._constants: list[str] = []
        self._forward: Callable | None = None
        self._observe: Callable | None = None
        self._norm_layers = NormLayers(self, [])
        self._recordings: dict[int, Recording] = {}  # by batch size
        self._statistics: tuple[NormStatistics, ...] | None = None  # at the time of the first recording

        rewritten = self._rewrite()
        self.float()  # images are single precision, archives can be half or double
        lengths = leading_lengths(rewritten.graph) if rewritten else set()
        self.batch_size = find_batch_size(self._logits, lambda batch: noise(self, batch, input_size), lengths)
        if rewritten:
            self._prepare_observe(rewritten.graph, noise(self, self.batch_size or 3, input_size))

    @property
    def norm_statistics(self) -> tuple[NormStatistics, ...]:
        """Running statistics per BatchNorm call; empty when torch.jit.freeze has folded them into convolutions."""
        return self._norm_layers.read() if self._statistics is None else self._statistics

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits [B, K] of normalised images [B, C, H, W]."""
        return forward_in_pieces(self._logits, inputs, self.batch_size)

    def observe(self, inputs: Tensor) -> Outputs:
        """Return the `Outputs` of the same forward."""
        return observe_in_pieces(self._outputs, inputs, self.batch_size)

    def make_compilable(self, batch_size: int) -> str | None:
        """Trace forwards of `batch_size` images to plain operations; return the reason when this fails, else None."""
        size = self.batch_size or batch_size
        if size in self._recordings:
            return None
        try:
            self._recordings[size] = record(self._logits, self._outputs, noise(self, size, self._input_size))
        except Exception as error:  # an archive from outside can fail in any way
            return error_line(error)
        self._statistics = self.norm_statistics  # torch.compile cannot read the tensors of a ScriptModule
        return None

    @property
    def compilable(self) -> bool:
        """Whether any batch size has been recorded; batches of other sizes run as TorchScript."""
        return bool(self._recordings)

    def train(self, mode: bool = True) -> "ScriptNetwork":
        """Keep evaluation mode whatever `mode` is, because archives are only teachers."""
        return super().train(False)

    def _rewrite(self) -> ScriptGraph | None:
        try:
            rewritten = evaluation_graph(self.module)
            function = tap(rewritten.graph, [])
        except DfkdError:
            raise
        except Exception as error:  # as above; the logits are usable without the rewritten graph
            self.notes.append(f"only the logits can be observed: the graph cannot be rewritten ({error_line(error)})")
            return None
        for constant in rewritten.constants:
            self._keep(constant.tensor, constant.learned)
        self.notes += rewritten.notes
        self._forward = function
        return rewritten

    def _keep(self, constant: Tensor, learned: bool) -> None:
        name = f"constant_{len(self._constants)}"
        if learned:
            self.register_parameter(name, nn.Parameter(constant, requires_grad=False))
        else:
            self.register_buffer(name, constant)
        self._constants.append(name)

    def _prepare_observe(self, graph: Graph, images: Tensor) -> None:
        """Determine the graph nodes that `observe` returns, and the running statistics."""
        try:
            norms, statistics, log = self._explore(graph, images)
        except Exception as error:  # as above
            self.notes.append(f"only the logits can be observed: the graph cannot be rewritten ({error_line(error)})")
            return
        classifier = log.classifier_input(self._logits(images))
        nodes = list(walk(graph))
        taps = [[Tap(site, 0) for site in norms]]
        if classifier:
            taps += [[Tap(classifier.site, NODE_MULTIPLICATIONS[nodes[classifier.site].kind()].activation)]]
        else:
            taps += [[]]
        taps += [[Tap(stage.site, None)] for stage in log.stages()]
        self._observe = tap(graph, taps)
        self._norm_layers = NormLayers(self, list(zip(statistics[::2], statistics[1::2], strict=True)))

    def _explore(self, graph: Graph, images: Tensor) -> tuple[list[int], list[Tensor], OperationLog]:
        """Run the graph once; return BatchNorm sites, mean and variance per call in turn, and the operations."""
        nodes = list(walk(graph))
        norms = [site for site, node in enumerate(nodes) if has_statistics(node)]
        sites = [site for site, node in enumerate(nodes) if creates_tensor(node)]
        taps = [[Tap(site, argument) for site in norms for argument in NODE_NORMS[nodes[site].kind()][:2]]]
        for site in sites:
            multiplication = NODE_MULTIPLICATIONS.get(nodes[site].kind())
            taps += [[Tap(site, None)], [Tap(site, multiplication.activation)] if multiplication else []]
        with torch.no_grad():
            _, statistics, *tensors = self._run(tap(graph, taps), images)
        log = OperationLog(images.shape[0])
        for site, results, sources in zip(sites, tensors[::2], tensors[1::2], strict=True):
            kind, _ = NODE_MULTIPLICATIONS.get(nodes[site].kind(), ("", 0))
            if results and isinstance(results[-1], Tensor):  # TorchScript types some None values as tensors
                log.add(kind, sources[-1] if sources else None, results[-1], site)
        return norms, statistics, log

    def _logits(self, inputs: Tensor) -> Tensor:
        if (recording := self._recordings.get(inputs.shape[0])) is not None:
            return recording.logits(inputs)
        if self._forward is None:
            returned = self.module(inputs)
        else:
            (returned,) = self._run(self._forward, inputs)
        return pick_logits(returned, inputs.shape[0], self._output, self._num_classes)

    def _outputs(self, inputs: Tensor) -> Outputs:
        if (recording := self._recordings.get(inputs.shape[0])) is not None:
            return recording.outputs(inputs)
        if self._observe is None:
            return Outputs(self._logits(inputs), (), None, ())
        returned, norm_inputs, classifier, *stages = self._run(self._observe, inputs)
        return Outputs(
            logits=pick_logits(returned, inputs.shape[0], self._output, self._num_classes),
            norm_inputs=tuple(norm_inputs),
            embedding=as_embedding(classifier[-1]) if classifier else None,
            stages=tuple(stage[-1] for stage in stages if stage),
        )

    def _run(self, function: Callable, inputs: Tensor) -> Any:
        # The optimising executor profiles and recompiles for every new shape, and does not speed up convolutions.
        with optimized_execution(False):
            return function(self.module, inputs, *(getattr(self, name) for name in self._constants))
