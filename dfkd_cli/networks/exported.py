"""A network that is a torch.export archive (`.pt2`)."""

import operator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from dfkd_cli.errors import TeacherError
from dfkd_cli.networks.base import Network, NormStatistics, Outputs
from dfkd_cli.networks.exported_graph import (
    OVERLOAD_MULTIPLICATIONS,
    OVERLOAD_NORMS,
    evaluation_module,
    has_statistics,
    recorded_shape,
    with_outputs,
)
from dfkd_cli.networks.fixed_batch import find_batch_size, forward_in_pieces, observe_in_pieces
from dfkd_cli.networks.noise import noise
from dfkd_cli.networks.norm_layers import NormLayers
from dfkd_cli.networks.operation_log import OperationLog, as_embedding
from dfkd_cli.networks.outputs import pick_logits


class ExportedNetwork(Network):
    """A frozen exported program, always in evaluation mode."""

    def __init__(
        self,
        program: ExportedProgram,
        output: str | None = None,
        *,
        input_size: tuple[int, int, int] | None = None,
        num_classes: int | None = None,
    ):
        """`input_size` (C, H, W) is needed only for lengths that the program leaves dynamic.

        Raises ForwardError when the program fails on it, and TeacherError when the program is in training mode, takes
        more than images, contradicts `input_size`, or works only for too small batches.
        """
        super().__init__()
        input_size = _input_size(program, input_size)
        self.module, notes = evaluation_module(program)
        self.notes += notes
        self.module.requires_grad_(False).float()  # images are single precision, archives can be half or double
        self._output = output
        self._num_classes = num_classes
        self._out_spec: Any = program.call_spec.out_spec
        batch = recorded_shape(program)[0]
        self.batch_size = find_batch_size(
            self._logits, lambda size: noise(self, size, input_size), [] if batch is None else [batch]
        )
        self._prepare_observe(noise(self, self.batch_size or 3, input_size))

    @property
    def norm_statistics(self) -> tuple[NormStatistics, ...]:
        """Running statistics per BatchNorm call."""
        return self._norm_layers.read()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits [B, K] of normalised images [B, C, H, W]."""
        return forward_in_pieces(self._logits, inputs, self.batch_size)

    def observe(self, inputs: Tensor) -> Outputs:
        """Return the `Outputs` of the same forward."""
        return observe_in_pieces(self._outputs, inputs, self.batch_size)

    def train(self, mode: bool = True) -> "ExportedNetwork":
        """Keep evaluation mode whatever `mode` is, because archives are only teachers."""
        return super().train(False)

    def _prepare_observe(self, images: Tensor) -> None:
        """Determine the graph nodes that `observe` returns, and the running statistics."""
        explorer = _Explorer(self.module, images.shape[0])
        with torch.no_grad():
            logits = self._pick(explorer.run(images), images.shape[0])
        nodes = list(self.module.graph.nodes)
        stages = [nodes[stage.site] for stage in explorer.log.stages()]
        norm_inputs = [node.args[0] for node in nodes if has_statistics(node)]
        found = explorer.log.classifier_input(logits)
        classifier = []
        if found is not None:
            node = nodes[found.site]
            classifier = [node.args[OVERLOAD_MULTIPLICATIONS[node.target].activation]]
        self._sections = [self._out_spec.num_leaves, len(norm_inputs), len(classifier), len(stages)]
        # Only the code of the second module is used, and run on the first one: there is one set of weights to move.
        self._observe = type(with_outputs(self.module, [*norm_inputs, *classifier, *stages])).forward
        self._norm_layers = NormLayers(self, explorer.norm_statistics)

    def _logits(self, inputs: Tensor) -> Tensor:
        return self._pick(self.module(inputs), inputs.shape[0])

    def _outputs(self, inputs: Tensor) -> Outputs:
        values = iter(self._observe(self.module, inputs))
        returned, norm_inputs, classifier, stages = (tuple(islice(values, length)) for length in self._sections)
        return Outputs(
            logits=self._pick(returned, inputs.shape[0]),
            norm_inputs=norm_inputs,
            embedding=as_embedding(classifier[0]) if classifier else None,
            stages=stages,
        )

    def _pick(self, returned: tuple, batch: int) -> Tensor:
        named = pytree.tree_unflatten(returned, self._out_spec)
        return pick_logits(named, batch, self._output, self._num_classes)


class _Explorer(fx.Interpreter):
    """Runs a graph once and records its operations."""

    def __init__(self, module: fx.GraphModule, batch: int):
        super().__init__(module)
        self.log = OperationLog(batch)
        self.norm_statistics: list[tuple[Tensor, Tensor]] = []
        self._sites = {node: site for site, node in enumerate(module.graph.nodes)}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        arguments: Any = n.args
        if has_statistics(n):
            norm = OVERLOAD_NORMS[n.target]
            self.norm_statistics.append((self.env[arguments[norm.mean]], self.env[arguments[norm.var]]))
        # getitem nodes unpack the results of an operation; items of a list are pieces of one tensor, not activations.
        piece = n.target is operator.getitem and isinstance(self.env[arguments[0]], list)
        if n.op == "call_function" and isinstance(result, Tensor) and not piece:
            kind, position = OVERLOAD_MULTIPLICATIONS.get(n.target, ("", 0))
            source = self.env[arguments[position]] if kind else None
            self.log.add(kind, source, result, self._sites[n])
        return result


def _input_size(program: ExportedProgram, given: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Return (C, H, W) from the recorded lengths, and from `given` where they are dynamic."""
    recorded = recorded_shape(program)[1:]
    shape = "x".join("?" if length is None else str(length) for length in recorded)
    if given is None:
        channels, height, width = recorded
        if channels is None or height is None or width is None:
            raise TeacherError(f"the program takes images of {shape}; give each ? with --input-size CxHxW")
        return channels, height, width
    if any(length not in (None, wanted) for length, wanted in zip(recorded, given, strict=True)):
        raise TeacherError(f"--input-size {'x'.join(map(str, given))}: the program was exported for images of {shape}")
    return given
