"""An ONNX file as a classifier that can be evaluated, and nothing else."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.options import FLAGS, LoadOptions
from dfkd_cli.networks import Network, NormStatistics, Outputs, check_forward
from dfkd_cli.networks.classifier import Classifier, InputSpec, Origin
from dfkd_cli.networks.onnx_file import OnnxNetwork, open_onnx
from dfkd_cli.networks.outputs import pick_logits
from dfkd_cli.networks.returned import Returned


class OnnxClassifier(Classifier):
    """Runs in onnxruntime on the CPU, wherever the images are; without gradients."""

    def __init__(self, runner: OnnxNetwork, output: str | None, spec: InputSpec, origin: Origin, returned: Returned):
        super().__init__(_Runner(runner, output, spec.num_classes), spec, origin, returned)
        self.runner = runner

    def parameter_count(self) -> int:
        """Number of trained values, as the file says or as its graph holds them."""
        return self.runner.parameters


class _Runner(Network):
    def __init__(self, runner: OnnxNetwork, output: str | None, num_classes: int | None):
        super().__init__()
        self.runner, self.output, self.num_classes = runner, output, num_classes

    @property
    def compilable(self) -> bool:
        return False

    @property
    def norm_statistics(self) -> tuple[NormStatistics, ...]:
        return ()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [B, K]; a file of a fixed batch size gets the images in batches of it, the last one filled up."""
        images = inputs.float().cpu().contiguous()
        size = self.runner.batch_size or len(images)
        filled = torch.cat([images, images.new_zeros(-len(images) % size, *images.shape[1:])])
        batches = [self.runner.outputs(batch.contiguous()) for batch in filled.split(size)]
        returned = [parts if len(parts) > 1 else next(iter(parts.values())) for parts in batches]
        logits = [pick_logits(parts, size, self.output, self.num_classes) for parts in returned]
        return torch.cat(logits)[: len(images)].to(inputs.device)

    def observe(self, inputs: Tensor) -> Outputs:
        """Logits alone."""
        return Outputs(self(inputs), (), None, ())


def load_onnx(source: str, options: LoadOptions) -> OnnxClassifier:
    """The classifier in an ONNX file; one that dfkd wrote says all about its input, and needs no flags.

    Raises UsageError naming what else is missing, and TeacherError for a file that onnxruntime cannot run.
    """
    runner = open_onnx(Path(source), torch.get_num_threads())
    facts = _facts(runner.metadata)
    findings = Findings(LoadOptions() if facts.keys() >= FLAGS.keys() else options)
    findings.must_agree("input_size", runner.input_size, "the ONNX graph's input")
    findings.offer_metadata(facts, "the ONNX file's metadata")
    wanted = findings.values.get("num_classes")
    tried = check_forward(_Runner(runner, options.output, wanted), runner.input_size)
    findings.outputs_must_agree(tried.outputs, "the forward on noise")
    arch = facts.get("arch")
    origin = Origin(source, "ONNX", arch if isinstance(arch, str) else None, None, findings.found, tried.notes)
    return OnnxClassifier(runner, options.output, findings.spec(), origin, tried.returned)


def _facts(metadata: dict[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, text in metadata.items():
        try:
            facts[name] = json.loads(text)
        except ValueError:
            continue  # other programs write other things
    return facts
