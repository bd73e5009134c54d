"""Students: building one from the name of its architecture, and saving it for dfkd and timm."""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from torch import fx, nn

from dfkd_cli.config.version import __version__
from dfkd_cli.errors import UsageError, first_line
from dfkd_cli.loading.catalogue import check_known, create, is_torchvision, similar_names
from dfkd_cli.loading.failures import quiet
from dfkd_cli.loading.own_files import STUDENT_FILE
from dfkd_cli.loading.smp import is_smp, smp_config
from dfkd_cli.machine.files import write_atomically
from dfkd_cli.models import REFERENCE_ARCHS  # importing it adds them to timm's registry
from dfkd_cli.networks import EagerNetwork
from dfkd_cli.networks.classifier import Classifier, InputSpec, Origin
from dfkd_cli.networks.graphs.graph_data import to_data
from dfkd_cli.networks.tasks import TASKS, task_of

HUB_FILE = "model.safetensors"
# The keys of timm's configuration that describe layers. The other keys describe published weights.
_LAYER_KEYS = ("first_conv", "classifier", "fixed_input_size")
# What constructors and forwards of timm's networks raise for a size or number of channels that they do not support.
_REJECTIONS = (AssertionError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError, ZeroDivisionError)


def build_student(name: str, spec: InputSpec) -> Classifier:
    """Return a classifier of the architecture `name`, of timm or `torchvision/NAME`, for `spec`, in training mode.

    Its weights are drawn from torch's global random generator. Raises UsageError for an unknown name, with the most
    similar known names, and for a network that does not support this input.
    """
    arch = name.removeprefix("timm:")
    _check_name(arch)
    shape = "x".join(map(str, spec.size))
    try:
        with quiet("timm"):
            module = create(arch, num_classes=spec.num_classes, **_input_arguments(arch, spec.size))
    except _REJECTIONS as error:
        raise UsageError(f"--student {arch} cannot be made for {shape} images: {first_line(error)}") from error
    module.eval()
    try:
        with torch.no_grad():
            logits = module(torch.zeros(2, *spec.size))
    except _REJECTIONS as error:
        raise UsageError(f"--student {arch} cannot take {shape} images: {first_line(error)}") from error
    _check_logits(arch, logits, spec)
    module.train()
    network = EagerNetwork(module, input_size=spec.size, num_classes=spec.num_classes)
    return Classifier(network, spec, Origin(source=name, kind="new student", arch=arch, sha256=None))


def _check_logits(arch: str, logits: object, spec: InputSpec) -> None:
    """Raise UsageError unless these are logits of two images for the task and the classes of the teacher."""
    if not isinstance(logits, torch.Tensor) or (task := task_of(logits, 2)) is None:
        raise UsageError(f"--student {arch} does not return logits")
    if task.name != spec.task:
        raise UsageError(
            f"--student {arch} is {task.network} with {task.answers}, the teacher has {TASKS[spec.task].answers}: "
            f"name a network for {spec.task}, or a share of the teacher such as 0.5"
        )
    if logits.shape[1] != spec.num_classes:
        raise UsageError(f"--student {arch} does not return one logit for each of {spec.num_classes} classes")


def save_student(
    classifier: Classifier,
    folder: Path,
    teacher_sha256: str | None,
    recipe_sha256: str,
    method: str,
    narrowed: bool = False,
) -> str:
    """Write `student.safetensors` into `folder`, and return its sha256.

    dfkd loads the file or the folder. With the `config.json` that is written for a whole timm architecture,
    `timm.create_model("local-dir:FOLDER", pretrained=True)` loads the folder too. `method` is that of the recipe;
    `narrowed` says that layers have other sizes than the architecture. Raises ValueError for a network that is neither
    a timm architecture nor a graph.
    """
    arch, module, spec = classifier.origin.arch, _timm_module(classifier), classifier.spec
    facts = {
        "version": __version__,
        **_structure(arch, module, narrowed),
        **({"model_args": classifier.origin.arguments} if classifier.origin.arguments else {}),
        "num_classes": spec.num_classes,
        "input_size": list(spec.size),
        "mean": list(spec.mean),
        "std": list(spec.std),
        **asdict(spec.preprocessing),
        **({"assumed": list(spec.assumed)} if spec.assumed else {}),
        **({"class_names": list(spec.class_names)} if spec.class_names else {}),
        "teacher_sha256": teacher_sha256,
        "recipe_sha256": recipe_sha256,
        "method": method,
    }
    # Cloned, because safetensors refuses tensors that share memory (tied weights) or are not contiguous.
    weights = {
        name: tensor.detach().cpu().contiguous().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
    # A single metadata key, because several are written in random order, which would change the sha256.
    content = safetensors.torch.save(weights, metadata={"dfkd": json.dumps(facts)})
    write_atomically(folder / STUDENT_FILE, content)
    if arch is not None and not narrowed and is_smp(arch):
        write_atomically(folder / "config.json", json.dumps(smp_config(module), indent=2).encode())
        _name_weights(folder)
    elif arch is not None and not narrowed and not is_torchvision(arch):
        config = json.dumps(_timm_config(arch, module, spec), indent=2) + "\n"
        write_atomically(folder / "config.json", config.encode())
        _name_weights(folder)
    return hashlib.sha256(content).hexdigest()


def _name_weights(folder: Path) -> None:
    """Give the student the name of weights that timm and smp look for, beside its own.

    Without it timm takes the first of all safetensors files, which can be that of the calibration images.
    """
    path = folder / HUB_FILE
    if path.exists():
        return
    try:
        path.symlink_to(STUDENT_FILE)
    except OSError:  # a file system without links
        shutil.copyfile(folder / STUDENT_FILE, path)


def _structure(arch: str | None, module: nn.Module, narrowed: bool) -> dict[str, Any]:
    """Return what the weights do not say of a network: its architecture, or its graph as data.

    The layers of a narrowed architecture have the sizes of its weights. Raises ValueError for a module that is neither.
    """
    if isinstance(module, fx.GraphModule):
        return {"arch": None, "graph": to_data(module)}
    if arch is None:
        raise ValueError("only a timm architecture or a graph can be saved as a student")
    return {"arch": arch, "narrowed": True} if narrowed else {"arch": arch}


def _check_name(arch: str) -> None:
    if is_torchvision(arch) or is_smp(arch):
        return check_known(arch)
    if timm.is_model(arch):
        if "." in arch:
            bare = arch.partition(".")[0]
            raise UsageError(
                f"--student {arch} names pretrained weights, but a student starts without them; use {bare}"
            )
        return
    close = similar_names(arch)
    hint = f"did you mean {' or '.join(close)}?" if close else f"use any timm model or {', '.join(REFERENCE_ARCHS)}"
    raise UsageError(f"--student {arch}: unknown architecture; {hint}")


def _input_arguments(arch: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """Return the arguments of timm.create_model for this input; an image size only if weights depend on it."""
    known = None if is_torchvision(arch) or is_smp(arch) else timm.get_pretrained_cfg(arch)
    fixed = known is not None and known.fixed_input_size
    return {"in_chans": size[0]} | ({"img_size": list(size[1:])} if fixed else {})


def _timm_config(arch: str, module: nn.Module, spec: InputSpec) -> dict[str, Any]:
    """Return timm's `config.json`: how to build the network and how to preprocess its images."""
    known = dict(getattr(module, "pretrained_cfg", None) or {})
    if spec.size[0] != 3:
        # timm before 1.0.31 assumes a first convolution for RGB, and initialises it randomly if it cannot adapt it.
        known.pop("first_conv", None)
    return {
        "architecture": arch,
        "num_classes": spec.num_classes,
        "num_features": getattr(module, "num_features", None),
        "model_args": _input_arguments(arch, spec.size),
        **({"label_names": list(spec.class_names)} if spec.class_names else {}),
        "pretrained_cfg": {
            **{key: known[key] for key in _LAYER_KEYS if known.get(key) is not None},
            "input_size": list(spec.size),
            "num_classes": spec.num_classes,
            "mean": list(spec.mean),
            "std": list(spec.std),
            **asdict(spec.preprocessing),  # as `dfkd evaluate` preprocesses images
            "hf_hub_filename": STUDENT_FILE,  # otherwise timm expects model.safetensors on the hub
        },
    }


def _timm_module(classifier: Classifier) -> nn.Module:
    if not isinstance(classifier.network, EagerNetwork):
        raise TypeError(f"a student is an EagerNetwork, not {type(classifier.network).__name__}")
    return classifier.network.module
