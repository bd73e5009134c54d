"""Identifies the form of a network file by its content; name and extension do not matter."""

import enum
from pathlib import Path

from dfkd_cli.errors import TeacherError, UsageError
from dfkd_cli.loading.archive import list_archive
from dfkd_cli.loading.foreign_files import foreign_archive, foreign_file, starts_like_onnx
from dfkd_cli.loading.foreign_folders import foreign_folder


class Form(enum.Enum):
    """Forms of a network on disk."""

    FOLDER = "a folder"
    SAFETENSORS = "a safetensors file"
    TORCHSCRIPT = "a TorchScript archive"
    EXPORTED = "a torch.export archive"
    TORCH_ZIP = "a torch.save file"
    TORCH_LEGACY = "a torch.save file of the old format"
    ONNX = "an ONNX file"


_HEAD = 4096  # bytes that are read
_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # torch.save's magic number as pickle writes it
_KNOWN_STARTS = {
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"\xfd7zXZ": "an xz file; unpack it first",
    b"7z\xbc\xaf": "a 7z file; unpack it first",
    b"\x93NUMPY": "a NumPy array",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x7fELF": "a program or shared library",
    b"%PDF": "a PDF document",
}


def identify(path: Path) -> Form:
    """Return the form of an existing file or folder.

    Raises UsageError when it cannot be opened, and TeacherError with its probable type when it is no network, or a
    network of another program.
    """
    try:
        if path.is_dir():
            if foreign := foreign_folder(path):
                raise TeacherError(f"{path} is {foreign}")
            return Form.FOLDER
        if not path.is_file():
            raise UsageError(f"{path} is neither a file nor a folder")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise UsageError(f"{path} cannot be opened: {error.strerror or error}") from error
    if not head:
        raise TeacherError(f"{path} is empty; copy or download it again")
    if head.startswith(b"PK") and path.suffix != ".distcp":
        return _identify_archive(path)
    if head[8:9] == b"{":
        return Form.SAFETENSORS
    if head.startswith(b"\x80") and _LEGACY_MAGIC in head[:32]:
        return Form.TORCH_LEGACY
    if starts_like_onnx(head):
        return Form.ONNX
    if foreign := foreign_file(head, path):
        raise TeacherError(f"{path} is {foreign}")
    raise TeacherError(f"{path} contains no network: it looks like {_looks_like(head)}")


def is_onnx(source: str) -> bool:
    """Return whether `source` is an ONNX file."""
    path = Path(source)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return starts_like_onnx(file.read(_HEAD))


def _identify_archive(path: Path) -> Form:
    names = list_archive(path)
    leaves = {name.partition("/")[2] for name in names}
    if "archive_format" in leaves and any(leaf.startswith("models/") for leaf in leaves):
        return Form.EXPORTED
    if "serialized_exported_program.json" in names:
        raise TeacherError(f"{path} was exported by torch 2.7 or older; load it there and torch.export.save it again")
    if any(leaf.startswith("data/aotinductor/") for leaf in leaves):
        raise TeacherError(f"{path} contains compiled code without layers that can be observed; use torch.export.save")
    if "constants.pkl" in leaves or "model.json" in leaves:
        return Form.TORCHSCRIPT
    if "data.pkl" in leaves:
        return Form.TORCH_ZIP
    if foreign := foreign_archive(names):
        raise TeacherError(f"{path} is {foreign}")
    seen = ", ".join(names[:3]) or "nothing"
    raise TeacherError(f"{path} contains no network: it is a zip archive with other content ({seen})")


def _looks_like(head: bytes) -> str:
    for start, name in _KNOWN_STARTS.items():
        if head.startswith(start):
            return name
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first, or save it again with torch.save if torch older than 0.1.10 wrote it"
    if (head[:1] == b"\x80" and head[1:2] <= b"\x05") or (head[:1] in b"(c}]" and head.rstrip().endswith(b".")):
        return "a bare Python pickle, which runs code when opened; save the weights with torch.save"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page, probably an error page of the download; download it again"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; run `git lfs pull` to get the file it points to"
    if text.startswith((b"<?xml", b"<")):
        return "an XML or HTML document; download the file again"
    if text.startswith((b"{", b"[")):
        return "a JSON document"
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in head) and _is_utf8(head):
        return "a text file"
    return f"binary data of an unknown kind (first bytes {head[:8].hex(' ')})"


def _is_utf8(head: bytes) -> bool:
    # A character of up to four bytes can be cut at the end of the bytes read.
    return any(_decodes(head[: len(head) - cut]) for cut in range(4))


def _decodes(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
