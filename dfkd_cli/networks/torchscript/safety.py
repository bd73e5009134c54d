"""Checks the code inside a TorchScript archive before torch loads it.

TorchScript is not Python, but it can write files: `torch.save` is one of its operators, and a `__setstate__` method
runs while the archive is loaded. So the source text is checked first; it must be text as torch writes it.
"""

import re
from pathlib import Path

from dfkd_cli.errors import TeacherError

_FILE_OPERATORS = frozenset({"save", "load", "from_file", "read_file", "write_file", "load_library"})
# In every namespace of TorchScript, `autograd` is an alias for all operators of torch.
_FORBIDDEN = _FILE_OPERATORS | {"autograd"}
_NAMESPACES = frozenset({"aten", "prim", "prims", "quantized", "_quantized", "torchvision", "prepacked", "onednn"})
_CLASS_NAMESPACES = frozenset({"quantized"})

_STRING = re.compile(r'(?<![A-Za-z0-9_])"(?:[^"\\\n]|\\.)*"')  # as torch prints every string
_LEFTOVER = re.compile(r"[\"'#\\]")
_WORD = re.compile(r"(?<![\w.])(torch|ops)\b(?!\s*:)(?:\s*\.\s*(\w+))?(?:\s*\.\s*(\w+))?")
_SPACED_DOT = re.compile(r"\s*\.\s*")
_NATIVE_CLASS = re.compile(r"torch\.classes\.(\w+)")
_NATIVE_CLASS_IN_PICKLE = re.compile(rb"torch[.\n]classes[.\n](\w+)")


def check_script(records: dict[str, bytes], path: Path) -> None:
    """Raise TeacherError when the archive's code uses files or native classes, or cannot be checked.

    `records` are the records of the archive by name, `path` is the file for messages.
    """
    if any(name.lower().partition("/")[2] == "model.json" for name in records):
        raise TeacherError(f"{path} is TorchScript of PyTorch older than 1.4; load it there and save it again")
    for name, content in records.items():
        kind = name.lower().rpartition(".")[2]  # torch finds records in any case
        if kind == "py":
            _check_source(content, name, path)
        elif kind == "pkl":
            for match in _NATIVE_CLASS_IN_PICKLE.finditer(content):
                _check_class(match.group(1).decode(), name, path)


def _check_source(content: bytes, name: str, path: Path) -> None:
    with_strings = content.decode("utf-8", errors="replace")
    source = _SPACED_DOT.sub(".", _STRING.sub("", with_strings))
    if _LEFTOVER.search(source):
        raise TeacherError(
            f"{path} holds code in {name} that torch did not write; trace the network again, "
            "or add --trust-pickle if you trust whoever made the file"
        )
    for match in _NATIVE_CLASS.finditer(source):
        _check_class(match.group(1), name, path)
    for match in _WORD.finditer(source):
        module, first, second = match.groups()
        if module == "torch":
            allowed = first is not None and first not in _FORBIDDEN
        else:
            allowed = first in _NAMESPACES and second is not None and second not in _FORBIDDEN
        if not allowed:
            raise _unsafe(".".join(part for part in match.groups() if part), name, path)


def _check_class(namespace: str, name: str, path: Path) -> None:
    if namespace not in _CLASS_NAMESPACES:
        raise _unsafe(f"torch.classes.{namespace}", name, path)


def _unsafe(what: str, name: str, path: Path) -> TeacherError:
    return TeacherError(
        f"{path} is unsafe: its code in {name} uses {what}, which can reach files or the system; "
        "trace the network again without it, or add --trust-pickle if you trust whoever made the file"
    )
