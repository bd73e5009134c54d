"""Opens torch.export archives (.pt2)."""

from pathlib import Path
from typing import Any, cast

import torch

from dfkd_cli.errors import TeacherError
from dfkd_cli.loading.archive import read_archive, write_archive
from dfkd_cli.loading.exported_safety import clean_records
from dfkd_cli.loading.extra_files import offer_extra_files
from dfkd_cli.loading.failures import damaged_file, quiet
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.layouts import as_images, channels_last, is_channels_last
from dfkd_cli.loading.optimised import refuse_optimised
from dfkd_cli.loading.state_dict import check_finite


def load_exported(path: Path, findings: Findings, trust_pickle: bool) -> torch.export.ExportedProgram:
    """Return the program on the CPU; offers `findings` its extra files and input shape.

    Raises TeacherError for damaged archives, for those that were optimised for inference, for NaN weights, and unless
    `trust_pickle` for content that would run.
    """
    records = read_archive(path)
    refuse_optimised(records, path)
    if not trust_pickle:
        records = clean_records(records, path)
    offer_extra_files(records, findings, path)
    with damaged_file(path, "a torch.export archive"), quiet("torch"):
        program = torch.export.load(write_archive(records))
    check_finite(program.state_dict, path)
    _offer_shape(program, findings, path)
    return program


def _offer_shape(program: torch.export.ExportedProgram, findings: Findings, path: Path) -> None:
    """Offer the image size of the exported graph; raise TeacherError unless it takes one batch of images."""
    inputs: Any = program.graph_signature.user_inputs
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    only = inputs[0] if len(inputs) == 1 else None
    value = placeholders[only].meta.get("val") if only in placeholders else None
    if not isinstance(value, torch.Tensor):
        what = f"{len(inputs)} inputs" if len(inputs) != 1 else "an input that is no tensor"
        raise TeacherError(f"{path} takes {what}; export a module that takes one batch of images [B, C, H, W]")
    if value.ndim != 4:
        raise TeacherError(f"{path} takes an input of shape {list(value.shape)}; {as_images(value.ndim)}")
    if is_channels_last(value.shape[1:]):
        raise channels_last(value.shape[1:], program)
    channels, height, width = value.shape[1:]
    if isinstance(channels, int):
        findings.channels_must_agree(channels, "the exported graph's input")
    if all(isinstance(length, int) for length in (channels, height, width)):
        findings.must_agree("input_size", (channels, height, width), "the exported graph's input")
        return
    examples = cast(Any, program.example_inputs)  # (positional, by name), contrary to torch's annotation
    arguments = examples[0] if examples else ()
    example = next(iter(arguments), None)
    if isinstance(example, torch.Tensor):
        findings.offer("input_size", tuple(example.shape[1:]), "the exported graph's example input")
