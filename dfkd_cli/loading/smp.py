"""Networks of segmentation_models_pytorch, named `smp/ARCHITECTURE/ENCODER`. They need the extra `segmentation`."""

from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dfkd_cli.errors import TeacherError, UsageError, first_line
from dfkd_cli.loading.failures import damaged_file, quiet
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.model_arguments import is_plain
from dfkd_cli.loading.state_dict import Checkpoint, check_finite

PREFIX = "smp/"
CLASS = "_model_class"  # the key of config.json that names the class


def is_smp(arch: str) -> bool:
    """Return whether the name is one of smp's networks."""
    return arch.startswith(PREFIX)


def require_smp() -> ModuleType:
    """Return the package. Raises UsageError that names the extra when it is not installed."""
    try:
        import segmentation_models_pytorch as smp  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            "this network needs segmentation_models_pytorch, not installed here: pip install 'dfkd[segmentation]'"
        ) from error
    return smp


def create_smp(arch: str, num_classes: int, in_chans: int = 3) -> nn.Module:
    """Return the network with random weights. Raises UsageError for a name that smp does not know."""
    architecture, slash, encoder = arch.removeprefix(PREFIX).partition("/")
    if not slash or not encoder:
        raise UsageError(f"{arch}: write smp/ARCHITECTURE/ENCODER, e.g. smp/linknet/tu-mobilenetv3_small_050")
    smp = require_smp()
    try:
        with quiet("timm"):
            return smp.create_model(
                architecture, encoder, encoder_weights=None, in_channels=in_chans, classes=num_classes
            )
    except Exception as error:  # smp raises errors of many types for names, some of timm
        raise UsageError(f"{arch} cannot be made by segmentation_models_pytorch: {first_line(error)}") from error


def smp_config(module: Any) -> dict[str, Any]:
    """Return the content of the `config.json` with which `smp.from_pretrained` builds the network."""
    return {**module.config, CLASS: type(module).__name__}


def build_smp(
    config: dict[str, Any], checkpoint: Checkpoint, findings: Findings, path: Path
) -> tuple[nn.Module, str | None]:
    """Return the network of smp's `config.json` with the weights, loaded strictly, and its name if that describes it.

    Offers classes and channels to `findings`. Raises TeacherError when the two do not fit, and UsageError without smp.
    """
    smp = require_smp()
    known = {kind.__name__: kind for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    kind = known.get(str(config[CLASS]))
    if kind is None:
        raise TeacherError(f"the config.json beside {path.name} names {config[CLASS]!r}, which smp does not have")
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    if not all(is_plain(value) for value in arguments.values()):
        raise TeacherError(f"the config.json beside {path.name} has values that are not plain: set aux_params to null")
    check_finite(checkpoint.tensors, path)
    with damaged_file(path, f"weights of smp's {kind.__name__}"), quiet("timm"):
        module = kind(**arguments | {"encoder_weights": None})
        module.load_state_dict(dict(checkpoint.tensors), strict=True)
    findings.outputs_must_agree(module.config["classes"], "config.json")
    findings.channels_must_agree(module.config["in_channels"], "config.json")
    return module, _name(module, kind.__name__)


def _name(module: Any, kind: str) -> str | None:
    """Return the name from which `create_smp` makes the same network; None when it has other arguments."""
    arch = f"{PREFIX}{kind.lower()}/{module.config['encoder_name']}"
    same = create_smp(arch, module.config["classes"], module.config["in_channels"])
    return arch if smp_config(same) == smp_config(module) else None
