"""Opens TorchScript archives, traced or scripted."""

from pathlib import Path

import torch

from dfkd_cli.errors import TeacherError
from dfkd_cli.loading.archive import read_archive, write_archive
from dfkd_cli.loading.extra_files import offer_extra_files
from dfkd_cli.loading.failures import damaged_file, quiet
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.optimised import refuse_optimised
from dfkd_cli.loading.state_dict import check_finite
from dfkd_cli.networks.torchscript import check_script, read_script


def load_script(path: Path, findings: Findings, trust_pickle: bool) -> torch.jit.ScriptModule:
    """Return the module on the CPU; offers `findings` the content of the archive's extra files.

    Raises TeacherError for damaged archives, for those that were optimised for inference, for NaN weights, and unless
    `trust_pickle` for unsafe code.
    """
    records = read_archive(path)
    refuse_optimised(records, path)
    if not trust_pickle:
        check_script(records, path)
    offer_extra_files(records, findings, path)
    # torch.jit.load warns since torch 2.11 that TorchScript is deprecated, which the user of a file cannot change.
    with damaged_file(path, "a TorchScript archive"), quiet("torch"):
        module = read_script(write_archive(records))
    if not hasattr(module, "forward"):
        raise TeacherError(f"{path} holds a TorchScript module without a forward method")
    check_finite(module.state_dict(), path)
    return module
