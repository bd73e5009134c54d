"""Bodies of classifiers behind one interface: eager modules, TorchScript archives, exported programs, ONNX files."""

from dfkd_cli.networks.base import Network, NormStatistics, Outputs
from dfkd_cli.networks.check import check_forward, input_gradient_reaches
from dfkd_cli.networks.eager import EagerNetwork
from dfkd_cli.networks.exported import ExportedNetwork
from dfkd_cli.networks.operations import QUANTIZED
from dfkd_cli.networks.torchscript import ScriptNetwork

__all__ = [
    "QUANTIZED",
    "EagerNetwork",
    "ExportedNetwork",
    "Network",
    "NormStatistics",
    "Outputs",
    "ScriptNetwork",
    "check_forward",
    "input_gradient_reaches",
]
