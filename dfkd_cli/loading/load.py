"""Loads a classifier from the file, folder or name that the user gave."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.loading import architecture
from dfkd_cli.loading.assumptions import complete_normalisation, complete_size, contradiction
from dfkd_cli.loading.catalogue import stated_name
from dfkd_cli.loading.causes import explained
from dfkd_cli.loading.exported import load_exported
from dfkd_cli.loading.failures import damaged_file
from dfkd_cli.loading.findings import Findings
from dfkd_cli.loading.hub_folder import build_from_config, config_beside, find_weights, read_config
from dfkd_cli.loading.model_arguments import model_arguments, without_fitted
from dfkd_cli.loading.options import LoadOptions
from dfkd_cli.loading.safetensors_file import read_metadata, read_safetensors
from dfkd_cli.loading.script import load_script
from dfkd_cli.loading.several import choose, named_like, shown, stated_architecture
from dfkd_cli.loading.smp import CLASS, build_smp
from dfkd_cli.loading.sniff import Form, identify
from dfkd_cli.loading.state_dict import Checkpoint, check_finite, unwrap
from dfkd_cli.loading.timm_name import fetch_from_hub, load_timm_name
from dfkd_cli.loading.torch_file import read_torch_file
from dfkd_cli.loading.training_arguments import TrainingArguments
from dfkd_cli.loading.trial import Trial
from dfkd_cli.networks import EagerNetwork, ExportedNetwork, ScriptNetwork, check_forward
from dfkd_cli.networks.classifier import Classifier, Origin
from dfkd_cli.networks.graphs.graph_data import from_data


def load_classifier(source: str, options: LoadOptions | None = None) -> Classifier:
    """Return the classifier in `source`: in evaluation mode, frozen, on the CPU, after a trial forward on noise.

    `source` is a file, a folder, `timm:NAME`, `hf-hub:OWNER/NAME` or a bare timm name. Classes, input size, mean and
    std come from the first of these that has them: the flags in `options`; the file's own description; the weights
    of its head and stem, which no flag can contradict; timm's configuration of the architecture, if the weights have
    its default classes and channels; trial forwards for the size and the first BatchNorm for mean and std, which are
    assumptions that `options.strict` refuses. `Classifier.origin.found` gives the source of each value. Raises
    UsageError for paths that do not exist and for missing values, with their flags, and TeacherError for errors in the
    file.
    """
    options = options or LoadOptions()
    findings = Findings(options)
    kind, name = _split_source(source)
    if kind == "timm":
        module = load_timm_name(name, options, findings)
        notes = () if options.pretrained else ("The weights are random: pretrained weights were not requested.",)
        return _finish(EagerNetwork, module, findings, options, Origin(source, "timm", name, None, notes=notes))
    path = fetch_from_hub(name) if kind == "hub" else Path(name)
    form = identify(path)
    if form is Form.FOLDER:
        return _load_folder(source, path, options, findings)
    findings.offer_class_names(config_beside(path), "the config.json beside it", outside=True)
    return _load_file(source, path, form, options, findings)


def _split_source(source: str) -> tuple[str, str]:
    """Return the kind of source ("timm", "hub" or "path") and its name without a prefix."""
    prefix, colon, rest = source.partition(":")
    if colon and prefix == "timm":
        return "timm", rest
    if colon and prefix in ("hf-hub", "hf_hub"):
        return "hub", rest
    if colon and prefix == "local-dir":
        return "path", rest
    try:
        exists = Path(source).exists()
    except OSError as error:  # a loop of links, a name too long
        raise UsageError(f"{source[:200]} cannot be opened: {error.strerror}") from error
    if exists or Path(source).is_symlink():
        return "path", source
    if timm.is_model(source) or ("/" not in source and "." not in source):
        return "timm", source
    raise UsageError(f"{source} does not exist")


def _load_folder(source: str, folder: Path, options: LoadOptions, findings: Findings) -> Classifier:
    path = find_weights(folder)
    form = identify(path)
    if form is Form.SAFETENSORS and "dfkd" in read_metadata(path):
        return _load_file(source, path, form, options, findings)
    config: dict[str, Any] = read_config(folder)
    if form is Form.SAFETENSORS:
        weights, _ = read_safetensors(path)
    elif form in (Form.TORCH_ZIP, Form.TORCH_LEGACY):
        weights = read_torch_file(path, form, options.trust_pickle)
    else:
        raise TeacherError(f"{path} is {form.value}; give the file to dfkd instead of its folder")
    if CLASS in config:
        smp_module, arch = build_smp(config, unwrap(weights, path), findings, path)
        return _finish(EagerNetwork, smp_module, findings, options, Origin(source, "smp folder", arch, _sha256(path)))
    findings.offer_class_names(config, "config.json")
    module: Any
    module, notes = build_from_config(config, unwrap(weights, path), options.prefix, findings, path)
    arguments = without_fitted(config.get("model_args") or {})
    origin = Origin(source, "hub folder", config["architecture"], _sha256(path), notes=notes, arguments=arguments)
    findings.outputs_must_agree(module.num_classes, "config.json")
    return _finish(EagerNetwork, module, findings, options, origin)


def _load_file(source: str, path: Path, form: Form, options: LoadOptions, findings: Findings) -> Classifier:
    if form is Form.TORCHSCRIPT:
        script = load_script(path, findings, options.trust_pickle)
        return _finish(
            ScriptNetwork, script, findings, options, _origin_of_archive(source, "TorchScript", path, options)
        )
    if form is Form.ONNX:
        raise TeacherError(
            f"{path} is an ONNX file, which can be run (`dfkd evaluate`, `dfkd benchmark`) but cannot be a teacher; "
            "give the network that it was exported from"
        )
    if form is Form.EXPORTED:
        program = load_exported(path, findings, options.trust_pickle)
        origin = _origin_of_archive(source, "exported program", path, options)
        return _finish(ExportedNetwork, program, findings, options, origin)
    if form is Form.SAFETENSORS:
        weights, student = read_safetensors(path)
        if student is not None:
            return _load_student(source, path, weights, student, options, findings)
        findings.offer_class_names(read_metadata(path), "the file's metadata")
        checkpoint = unwrap(weights, path)
    else:
        content = read_torch_file(path, form, options.trust_pickle)
        findings.offer_class_names(content, "the checkpoint")
        if isinstance(content, nn.Module):
            return _load_modules(source, path, {"": content}, options, findings)
        checkpoint = unwrap(content, path)
    if checkpoint.modules:
        return _load_modules(source, path, checkpoint.modules, options, findings)
    return _load_checkpoint(source, path, checkpoint, options, findings)


def _load_modules(
    source: str, path: Path, modules: dict[str, nn.Module], options: LoadOptions, findings: Findings
) -> Classifier:
    """Load a module that was pickled as a whole, alone or beside other objects."""
    named = modules if options.prefix is None else named_like(modules, options.prefix)
    if not named:
        raise UsageError(f"--prefix {options.prefix}: {path} has no module of that name; it has {shown(modules)}")
    module, notes = choose(named, path)
    check_finite(module.state_dict(), path)
    origin = Origin(source, "pickled module", None, _sha256(path), notes=notes)
    return _finish(EagerNetwork, module, findings, options, origin)


def _load_checkpoint(
    source: str, path: Path, checkpoint: Checkpoint, options: LoadOptions, findings: Findings
) -> Classifier:
    stated, args = stated_architecture(checkpoint, options.prefix, path)
    arguments = TrainingArguments(args)
    arch = options.arch or stated_name(stated)
    if arch is None:
        raise architecture.no_architecture(path, checkpoint)
    by_timm = arguments.of_timm() and arch == stated
    constructor = arguments.constructor() if by_timm else {}
    module, notes = architecture.build(arch, checkpoint, options.prefix, findings, path, constructor)
    findings.offer_metadata(arguments.input_facts(), "the checkpoint's training arguments")
    architecture.offer_defaults(arch, by_timm, findings)
    kind = "timm checkpoint" if stated else "state dict"
    origin = Origin(source, kind, arch, _sha256(path), notes=notes, arguments=constructor)
    return _finish(EagerNetwork, module, findings, options, origin)


def _load_student(
    source: str, path: Path, weights: dict[str, Tensor], facts: dict[str, Any], options: LoadOptions, findings: Findings
) -> Classifier:
    check_finite(weights, path)
    findings.offer_metadata(facts, "the dfkd student's metadata")
    findings.offer_class_names(facts, "the dfkd student's metadata")
    arguments = model_arguments(facts.get("model_args"), f"the metadata of {path.name}")
    if "graph" in facts:
        module: nn.Module = from_data(facts["graph"], weights)
    else:
        narrowed = bool(facts.get("narrowed"))
        module = architecture.build_student(facts["arch"], weights, findings, path, narrowed, arguments)
    origin = Origin(source, "dfkd student", facts.get("arch"), _sha256(path), arguments=arguments)
    return _finish(EagerNetwork, module, findings, options, origin)


def _origin_of_archive(source: str, kind: str, path: Path, options: LoadOptions) -> Origin:
    given = (("--arch", options.arch), ("--prefix", options.prefix))
    notes = tuple(f"{flag} {value} is ignored: the file contains its own network." for flag, value in given if value)
    return Origin(source, kind, None, _sha256(path), notes=notes)


def _finish(
    network_class: Callable[..., EagerNetwork | ScriptNetwork | ExportedNetwork],
    module: Any,
    findings: Findings,
    options: LoadOptions,
    origin: Origin,
) -> Classifier:
    """Wrap, freeze and check the network; `findings` gets what only the network shows."""
    if isinstance(module, nn.Module):
        module.eval()
    trial = Trial(module, network_class, options.output, findings.values.get("num_classes"), options.task)
    complete_size(trial, findings)
    size = findings.values["input_size"]
    shape = "x".join(map(str, size))
    with explained(trial, size):
        with damaged_file(origin.source, f"a network for {shape} images ({findings.found['input_size']})"):
            network = trial.make_network(size)
        checked = check_forward(network, size, options.task)
    findings.outputs_must_agree(checked.outputs, "the forward on noise")
    complete_normalisation(network, findings, options)
    spec = dataclasses.replace(findings.spec(), task=checked.task.name)
    doubts = contradiction(network, spec, findings.found)
    notes = (*origin.notes, *network.notes, *checked.notes, *findings.notes, *doubts)
    origin = dataclasses.replace(origin, found=findings.found, notes=notes)
    classifier = Classifier(network, spec, origin, checked.returned)
    return classifier.eval().requires_grad_(False)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
