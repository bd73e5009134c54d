"""Checks a torch.export archive and rebuilds it from the records that are data.

torch.export.load is not safe for untrusted files: it falls back to full unpickling, loads compiled libraries, hands
symbolic expressions to sympy's eval, imports modules named in tree specifications, resolves operators by attribute
access from `torch`, and pastes node names, guards and stack traces into Python code that it executes.
"""

import io
import json
import re
from pathlib import Path
from typing import Any

import torch

from dfkd_cli.errors import TeacherError
from dfkd_cli.loading.failures import damaged_file

_KEPT = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json|"
    r"data/(weights|constants)/[\w.-]+|data/sample_inputs/model\.pt|extra/[\w.-]+"
)
_NAMESPACES = r"aten|prims|prim|quantized|quantized_decomposed|torchvision"
_HIGHER_ORDER = r"wrap_with_set_grad_enabled|wrap_with_autocast|cond|while_loop|scan|map_impl"
_SYMBOLIC = r"sym_(int|float|max|min|not|sum|ite|sqrt|fresh_size)|_sym_sqrt"
_TARGET = re.compile(
    rf"torch\.ops\.(({_NAMESPACES})\.\w+(\.\w+)?|higher_order\.({_HIGHER_ORDER}))|torch\.({_SYMBOLIC})|"
    r"(_operator|math)\.[a-z]\w*"
)
_FILE_OPERATORS = re.compile(
    r"\.(save|load|from_file|read_file|write_file|load_library|(item|attr|method)getter|methodcaller|call)\b"
)
_NAME = re.compile(r"[\w.+-]*", re.ASCII)
_TEXT = re.compile(r"[^'\"\\\r\n]*")  # arguments of operators such as an interpolation mode
_SYMBOLS = re.compile(
    r"(?:'[a-z]+\d+'|\b[a-z]+\d+\b|\b\d{1,18}\b|\b\d+\.\d+\b|[-+/(),=<>&|~\s]|\*(?!\*)|\*\*\s?\d\b|"
    r"\b(?:Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|Eq|Ne|Lt|Le|Gt|Ge|Not|And|Or|oo|int_oo|"
    r"positive|negative|nonnegative|nonzero|integer|real|True|False|"
    r"FloorDiv|ModularIndexing|Where|PythonMod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|PowByNatural|FloatPow|"
    r"FloatTrueDiv|IntTrueDiv|TruncToFloat|TruncToInt|RoundToInt|ToFloat|Identity)\b)*"
)
_TREE_TYPES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})


def clean_records(records: dict[str, bytes], path: Path) -> dict[str, bytes]:
    """Return the archive's records without executable content; the graph and its weights are unchanged.

    Raises TeacherError when the network itself needs unsafe content, or when the archive is malformed.
    """
    root = next(iter(records)).partition("/")[0]
    inner = {name.removeprefix(f"{root}/"): content for name, content in records.items()}
    if any(name.startswith("data/aotinductor/") for name in inner):
        raise _unsafe(path, "a compiled library")
    kept = {name: content for name, content in inner.items() if _KEPT.fullmatch(name)}
    if "models/model.json" not in kept:
        raise TeacherError(f"{path} contains no program called 'model'; write it with torch.export.save")
    with damaged_file(path, "a torch.export archive"):
        kept["models/model.json"] = json.dumps(_clean_program(json.loads(kept["models/model.json"]), path)).encode()
    for name, content in list(kept.items()):
        found_by_torch = name.lower()  # torch does not distinguish capitals
        if found_by_torch.endswith("_config.json") and found_by_torch.startswith("data/"):
            with damaged_file(path, "a torch.export archive"):
                kept[name] = json.dumps(_clean_payloads(json.loads(content), path)).encode()
        elif found_by_torch.endswith(".pt") and content:
            kept[name] = _clean_pickle(content, name, path)
    return {f"{root}/{name}": content for name, content in kept.items()}


def _clean_program(program: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the program without stack traces, guards and submodule signatures, with every string checked.

    torch compiles guards as Python. It derives the guards needed here, fixed input sizes, from the shapes in the graph.
    """
    program["guards_code"] = []
    module = program["graph_module"]
    module["metadata"] = {}
    module["module_call_graph"] = [call for call in module["module_call_graph"] if call["fqn"] == ""]
    _check(program, "", path)
    return program


def _check(value: Any, key: str, path: Path) -> None:
    """Empty `metadata` and replace devices by the CPU in a JSON tree; raise TeacherError for unsafe strings."""
    if isinstance(value, list):
        for item in value:
            _check(item, key, path)
    elif isinstance(value, dict):
        if isinstance(value.get("metadata"), dict):
            value["metadata"] = {}
        if "target" in value and "inputs" in value:
            _check_operator(value["target"], path)
        if "as_operator" in value:
            _check_operator(value["as_operator"], path)
        if key in ("device", "as_device"):
            value["type"], value["index"] = "cpu", None
        if "as_custom_obj" in value:
            raise _unsafe(path, "a custom object")
        for name, item in value.items():
            _check_string(name, "", path)
            _check(item, name, path)
    elif isinstance(value, str):
        _check_string(value, key, path)


def _check_string(text: str, key: str, path: Path) -> None:
    if key in ("in_spec", "out_spec"):
        _check_tree(json.loads(text)[1], path)
        return
    if key in ("expr_str", "as_expr"):
        safe = len(text) < 500 and _SYMBOLS.fullmatch(text)
    elif key in ("as_string", "as_strings"):
        safe = _TEXT.fullmatch(text)
    else:
        safe = _NAME.fullmatch(text)
    if not safe:
        raise _unsafe(path, f"{text[:60]!r} as {key or 'a name'}")


def _check_operator(target: str, path: Path) -> None:
    if not _TARGET.fullmatch(target) or _FILE_OPERATORS.search(target):
        raise _unsafe(path, f"the operator {target[:60]!r}")


def _check_tree(spec: dict[str, Any], path: Path) -> None:
    if spec["type"] not in _TREE_TYPES:
        raise TeacherError(
            f"{path} returns or takes a {spec['type']}, which is a custom class; export a module that returns tensors"
        )
    if spec["context"] is not None:
        context = json.loads(spec["context"])
        keys = context if isinstance(context, list) else [context]
        if not all(
            key is None or isinstance(key, int) or (isinstance(key, str) and _NAME.fullmatch(key)) for key in keys
        ):
            raise _unsafe(path, "a tree specification that is not plain")
    for child in spec["children_spec"]:
        _check_tree(child, path)


def _clean_payloads(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the list of weights or constants with all of them on the CPU; raise TeacherError unless all are raw."""
    for name, payload in config["config"].items():
        if payload["use_pickle"] or not payload["path_name"].startswith(("weight_", "tensor_")):
            raise _unsafe(path, f"the pickled object {name!r}")
        if not _NAME.fullmatch(payload["path_name"]) or "/" in name:
            raise _unsafe(path, f"the weight {name!r}")
        if isinstance(payload.get("tensor_meta"), dict):
            payload["tensor_meta"]["device"] = {"type": "cpu", "index": None}
    return config


def _clean_pickle(content: bytes, name: str, path: Path) -> bytes:
    """Return a record with its tensors on the CPU, because torch.export opens it on the device that it names.

    Raises TeacherError unless the record opens safely.
    """
    try:
        opened = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        cleaned = io.BytesIO()
        torch.save(opened, cleaned)
        return cleaned.getvalue()
    # Such a record is damaged or hostile, and torch.export would unpickle it without limits.
    except Exception as error:
        raise _unsafe(path, f"a pickle in {name} that can run code") from error


def _unsafe(path: Path, what: str) -> TeacherError:
    return TeacherError(
        f"{path} is unsafe: it contains {what}; export the network again, "
        "or add --trust-pickle if you trust whoever made the file"
    )
