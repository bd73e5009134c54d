"""What the user asked `dfkd export` for."""

from dataclasses import dataclass
from pathlib import Path

from dfkd_cli.export.forms import FormName
from dfkd_cli.export.int8 import Int8Job
from dfkd_cli.loading import LoadOptions


@dataclass(frozen=True)
class ExportJob:
    """Options of `dfkd export`."""

    source: str
    load: LoadOptions
    to: FormName
    out: Path | None  # None: the name of the source with the suffix of the form
    overwrite: bool
    dynamic_batch: bool
    with_preprocessing: bool
    class_map: bool = False  # write the class of each pixel in place of the logits of a segmentation network
    int8: Int8Job | None = None  # None: single precision
