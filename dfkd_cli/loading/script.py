"""Opens TorchScript archives, traced or scripted."""

import json
from pathlib import Path
from typing import Any

import torch

from dfkd_cli.errors import TeacherError
from dfkd_cli.loading.archive import read_archive, write_archive
from dfkd_cli.loading.failures import damaged_file, quiet
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.script_safety import check_script
from dfkd_cli.loading.state_dict import check_finite

FACTS_FILE = "dfkd.json"  # what `dfkd export` says of a network
METADATA_FILES = (FACTS_FILE, "config.json")  # of torch.jit.save(..., _extra_files=...) and torch.export.save


def load_script(path: Path, findings: Findings, trust_pickle: bool) -> torch.jit.ScriptModule:
    """The module, frozen and on the CPU; offers `findings` what extra files say.

    Raises TeacherError for damaged archives, NaN weights, and unless `trust_pickle` code that reaches outside.
    """
    records = read_archive(path)
    if not trust_pickle:
        check_script(records, path)
    offer_extra_files(records, findings, path)
    # torch.jit.load warns since torch 2.11 that TorchScript is deprecated; the user's file is what it is.
    with damaged_file(path, "a TorchScript archive"), quiet("torch"):
        module = torch.jit.load(write_archive(records), map_location="cpu")
    if not hasattr(module, "forward"):
        raise TeacherError(f"{path} holds a TorchScript module without a forward method")
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    check_finite(module.state_dict(), path)
    return module


def offer_extra_files(records: dict[str, bytes], findings: Findings, path: Path) -> None:
    """Offer mean, std, input_size and num_classes of `dfkd.json` or `config.json` among the archive's extra files."""
    for name, content in records.items():
        leaf = name.partition("/extra/")[2]
        if leaf not in METADATA_FILES:
            continue
        with damaged_file(path, f"an archive with {leaf}"):
            metadata: Any = json.loads(content)
        if isinstance(metadata, dict):
            nested = metadata.get("pretrained_cfg")
            findings.offer_metadata(nested if isinstance(nested, dict) else metadata, f"{leaf} in the archive")
