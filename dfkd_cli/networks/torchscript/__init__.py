"""TorchScript archives as networks: all code that depends on TorchScript and on its private `torch._C` functions.

Only the names below are used elsewhere. When TorchScript is removed from torch, this package can be deleted together
with `loading/script.py` and the form `torchscript` of `dfkd export`.
"""

from dfkd_cli.networks.torchscript.files import read_script, write_script
from dfkd_cli.networks.torchscript.network import ScriptNetwork
from dfkd_cli.networks.torchscript.recording import trace_operations
from dfkd_cli.networks.torchscript.safety import check_script

__all__ = ["ScriptNetwork", "check_script", "read_script", "trace_operations", "write_script"]
