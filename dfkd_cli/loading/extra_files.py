"""Descriptions of the input that archives carry as extra files."""

import json
from pathlib import Path
from typing import Any

from dfkd_cli.loading.failures import damaged_file
from dfkd_cli.loading.findings import Findings

FACTS_FILE = "dfkd.json"  # written by `dfkd export`
_METADATA_FILES = (FACTS_FILE, "config.json")  # of torch.jit.save(..., _extra_files=...) and torch.export.save


def offer_extra_files(records: dict[str, bytes], findings: Findings, path: Path) -> None:
    """Offer the description of the input in `dfkd.json` or `config.json` among the archive's extra files."""
    for name, content in records.items():
        leaf = name.partition("/extra/")[2]
        if leaf not in _METADATA_FILES:
            continue
        with damaged_file(path, f"an archive with {leaf}"):
            metadata: Any = json.loads(content)
        if isinstance(metadata, dict):
            findings.offer_class_names(metadata, f"{leaf} in the archive")
            nested = metadata.get("pretrained_cfg")
            findings.offer_configuration(nested if isinstance(nested, dict) else metadata, f"{leaf} in the archive")
