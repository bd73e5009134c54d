"""Opens ONNX files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dfkd_cli.errors import TeacherError, first_line
from dfkd_cli.loading.causes import NO_ROWS
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.hub_folder import config_beside
from dfkd_cli.loading.layouts import channels_last, is_channels_last
from dfkd_cli.loading.options import FLAGS, LoadOptions
from dfkd_cli.networks import check_forward
from dfkd_cli.networks.classifier import Origin
from dfkd_cli.networks.forward_error import ForwardError
from dfkd_cli.networks.onnx import OnnxClassifier, OnnxNetwork, OnnxSession, require_onnx


def open_onnx(path: Path, threads: int = 0) -> OnnxSession:
    """Return the file as a function, after one call on noise.

    Raises UsageError when the extra `export` is not installed, and TeacherError for a file that cannot be run.
    """
    require_onnx()
    try:
        session = OnnxSession(path, threads)
        session(torch.rand(session.batch_size or 2, *session.input_size))
    except Exception as error:  # a file from outside can fail in any way
        raise TeacherError(f"{path} cannot be run by onnxruntime: {first_line(error)}") from error
    return session


def load_onnx(source: str, options: LoadOptions) -> OnnxClassifier:
    """Return the classifier in an ONNX file; a file that dfkd wrote describes its input and needs no flags.

    Raises UsageError naming the flags that are missing, and TeacherError for a file that onnxruntime cannot run.
    """
    session = open_onnx(Path(source), torch.get_num_threads())
    facts = _facts(session.metadata)
    findings = Findings(options.preprocessing_only() if facts.keys() >= FLAGS.keys() else options)
    if is_channels_last(session.input_size):
        raise channels_last(session.input_size, None)
    findings.must_agree("input_size", session.input_size, "the ONNX graph's input")
    findings.offer_metadata(facts, "the ONNX file's metadata")
    findings.offer_class_names(session.metadata, "the ONNX file's metadata")
    findings.offer_class_names(config_beside(Path(source)), "the config.json beside it", outside=True)
    num_classes = findings.values.get("num_classes")
    try:
        network = OnnxNetwork(session, options.output, num_classes)
        checked = check_forward(network, session.input_size, options.task)
    except ForwardError as error:  # the graph fixes the size, which cannot be the cause
        raise TeacherError(f"{error}; {NO_ROWS}" if error.ran else str(error)) from error
    findings.outputs_must_agree(checked.outputs, "the forward on noise")
    arch = facts.get("arch")
    origin = Origin(source, "ONNX", arch if isinstance(arch, str) else None, None, findings.found, checked.notes)
    spec = replace(findings.spec(), task=checked.task.name)
    return OnnxClassifier(session, options.output, spec, origin, checked.returned)


def _facts(metadata: dict[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, text in metadata.items():
        try:
            facts[name] = json.loads(text)
        except ValueError:
            continue  # other programs write values that are no JSON
    return facts
