"""The files that dfkd itself wrote, told by their metadata."""

import zipfile
from pathlib import Path

import safetensors

from dfkd_cli.loading.archive import list_archive
from dfkd_cli.loading.extra_files import FACTS_FILE

STUDENT_FILE = "student.safetensors"


def is_student(source: str) -> bool:
    """Return whether dfkd wrote this file or folder, as a student or as an export of one, by its metadata."""
    path = Path(source.removeprefix("local-dir:"))
    path = path / STUDENT_FILE if path.is_dir() else path
    if not path.is_file():
        return False
    if zipfile.is_zipfile(path):
        return any(name.endswith(f"/extra/{FACTS_FILE}") for name in list_archive(path))
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return "dfkd" in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False
