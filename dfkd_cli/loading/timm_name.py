"""Loads networks by name: timm's published weights and Hugging Face Hub repositories."""

import difflib
from pathlib import Path
from typing import Any

import timm
from torch import nn

from dfkd_cli.errors import TeacherError, UsageError, first_line
from dfkd_cli.loading.catalogue import check_tag
from dfkd_cli.loading.failures import quiet
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.foreign_folders import WEIGHTS
from dfkd_cli.loading.options import LoadOptions


def load_timm_name(name: str, options: LoadOptions, findings: Findings) -> nn.Module:
    """Return the network that timm publishes as `name`, with its weights unless `options.pretrained` is False.

    Raises UsageError for unknown names, and TeacherError when there are no weights or the download fails.
    """
    _check_name(name)
    cfg = timm.get_pretrained_cfg(name)
    if options.pretrained and (cfg is None or not cfg.has_weights):
        raise TeacherError(f"timm has no weights for {name}; give a checkpoint file with --arch {name}")
    arguments: dict[str, Any] = {}
    if not options.pretrained and options.num_classes:
        arguments["num_classes"] = options.num_classes
    if not options.pretrained and options.input_size:
        arguments["in_chans"] = options.input_size[0]
    try:
        with quiet("timm", "huggingface_hub"):
            module: Any = timm.create_model(name, pretrained=options.pretrained, **arguments)
    # Downloads raise HTTP, connection, cache and file errors of several libraries.
    except Exception as error:
        raise TeacherError(f"timm:{name} cannot be loaded: {first_line(error)}") from error
    source = f"timm's configuration of {name}"
    findings.outputs_must_agree(module.num_classes, source)
    if cfg is not None:
        if options.pretrained:
            findings.channels_must_agree(cfg.input_size[0], source)
        for key in ("input_size", "mean", "std"):
            findings.offer(key, tuple(getattr(cfg, key)), source)
        for key in ("crop_pct", "interpolation", "crop_mode"):
            findings.offer(key, getattr(cfg, key), source)
    return module


def fetch_from_hub(repository: str) -> Path:
    """Download config.json and the weights of a Hugging Face repository; return the local folder.

    `repository` is `owner/name` or `owner/name@revision`. Raises TeacherError when the download fails.
    """
    from huggingface_hub import snapshot_download  # slow to import

    owner_and_name, _, revision = repository.partition("@")
    safe = tuple(name for name in WEIGHTS if name.endswith(".safetensors"))
    try:
        with quiet("huggingface_hub"):
            for names in (safe, WEIGHTS):  # many repositories have the same weights in both forms
                wanted = ["config.json", *names]
                folder = Path(snapshot_download(owner_and_name, revision=revision or None, allow_patterns=wanted))
                if any((folder / name).exists() for name in names):
                    break
    # As above: errors of several libraries.
    except Exception as error:
        raise TeacherError(f"hf-hub:{repository} cannot be fetched: {first_line(error)}") from error
    return folder


def _check_name(name: str) -> None:
    if timm.is_model(name):
        check_tag(name)
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise UsageError(f"there is no file and no timm model {name!r}{hint}")
