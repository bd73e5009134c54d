"""Reads folders in timm's or smp's hub layout: `config.json` beside the weights."""

import json
from pathlib import Path
from typing import Any

import timm
from torch import nn

from dfkd_cli.errors import TeacherError
from dfkd_cli.loading.architecture import fitting_arguments, other_names
from dfkd_cli.loading.catalogue import check_known, plain_module
from dfkd_cli.loading.failures import damaged_file, quiet
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.foreign_folders import WEIGHTS
from dfkd_cli.loading.model_arguments import model_arguments
from dfkd_cli.loading.networks_inside import keep_names, without_wrappers
from dfkd_cli.loading.several import choose_network
from dfkd_cli.loading.smp import CLASS
from dfkd_cli.loading.state_dict import Checkpoint, check_finite

# Keys that are passed to timm; keys that make timm load other files are ignored.
_DESCRIPTIVE = ("input_size", "fixed_input_size", "mean", "std", "num_classes", "pool_size", "first_conv", "classifier")
_PREPROCESSING = ("crop_pct", "interpolation", "crop_mode")
_LARGEST_CONFIG = 2**24


def find_weights(folder: Path) -> Path:
    """Return the weights file of a folder; raise TeacherError when there is none."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for pattern in ("*.safetensors", "*.bin", "*.pth", "*.pt") for path in folder.glob(pattern))
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} weights files ({found[0].name}, ...)" if found else "no weights file"
    raise TeacherError(f"{folder} contains {what}; expected one of {', '.join(WEIGHTS)} beside config.json")


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of timm, with a known architecture, or of smp; raise TeacherError when it is neither."""
    path = folder / "config.json"
    if not path.is_file():
        raise TeacherError(f"{folder} has no config.json; give the weights file itself, with --arch")
    if path.stat().st_size > _LARGEST_CONFIG:
        raise TeacherError(
            f"{path} has {path.stat().st_size:,} bytes, which is too large for a configuration; download it again"
        )
    with damaged_file(path, "a configuration"):
        config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config, dict) and isinstance(config.get(CLASS), str):
        return config
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise TeacherError(f"{path} names no timm architecture; give a folder in timm's hub layout")
    check_known(config["architecture"])
    return config


def build_from_config(
    config: dict[str, Any], checkpoint: Checkpoint, wanted: str | None, findings: Findings, path: Path
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the network that timm builds from a configuration and weights that were read safely, and notes.

    Offers classes, size, mean, std and preprocessing to `findings`. Raises TeacherError when the two do not fit, and
    UsageError when several networks fit and `wanted` names none.
    """
    arch = config["architecture"]
    nested = config.get("pretrained_cfg")
    flat = nested if isinstance(nested, dict) else config  # before timm 0.9 all keys were at the top level
    cfg = {key: flat[key] for key in _DESCRIPTIVE if key in flat}
    if "num_classes" in config:
        cfg["num_classes"] = config["num_classes"]
    findings.offer_configuration(cfg | {key: flat[key] for key in _PREPROCESSING if key in flat}, "config.json")
    plain = plain_module(arch)
    inside, notes = choose_network(checkpoint, plain, other_names(arch), wanted, path)
    weights = inside.weights(plain)
    check_finite(weights, path)
    stated = model_arguments(config.get("model_args"), f"the config.json beside {path.name}")
    arguments = stated | fitting_arguments(arch, plain.state_dict(), weights, findings)
    # timm replaces a head or stem that differs from its configuration by a random one, so the values must agree.
    cfg["num_classes"] = arguments.setdefault("num_classes", findings.values.get("num_classes", 1000))
    channels = arguments.setdefault("in_chans", findings.values.get("input_size", (3,))[0])
    cfg["input_size"] = (channels, *findings.values.get("input_size", (3, 224, 224))[1:])
    with damaged_file(path, f"weights of {arch}"), quiet("timm"):
        # timm's own loading renames keys of older versions.
        weights = inside.raw if inside.renaming not in (keep_names, without_wrappers) else weights
        module = timm.create_model(
            arch, pretrained=True, pretrained_cfg=cfg | {"state_dict": dict(weights)}, **arguments
        )
    return module, notes


def config_beside(path: Path) -> Any:
    """Return the content of `config.json` in the folder of a weights file; None when there is none that can be read."""
    config = path.parent / "config.json"
    try:
        if config.stat().st_size > _LARGEST_CONFIG:
            return None
        return json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
