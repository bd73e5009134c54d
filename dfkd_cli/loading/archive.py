"""Reads zip archives that can be damaged or hostile, and writes clean copies of them."""

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from dfkd_cli.errors import TeacherError

# Weights are stored uncompressed; only code and debug records are deflated. A larger ratio means a zip bomb.
_MAX_RATIO = 50
_ALWAYS_ALLOWED = 64 * 2**20  # bytes


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive; raise TeacherError for every error of reading it inside the block."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise TeacherError(f"{path} is a damaged zip archive ({error}); copy or download it again") from error


def read_archive(path: Path) -> dict[str, bytes]:
    """Return every record of a zip file by name, with verified checksums.

    Raises TeacherError for truncated or altered records, duplicate names, encryption and zip bombs.
    """
    with _opened(path) as archive:
        _check_directory(path, archive)
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def check_archive(path: Path) -> None:
    """Check every record like `read_archive`, but keep none; for files that another reader opens afterwards."""
    with _opened(path) as archive:
        _check_directory(path, archive)
        broken = archive.testzip()
    if broken is not None:
        raise TeacherError(f"{path} is a damaged zip archive (bad checksum of {broken!r}); copy or download it again")


def list_archive(path: Path) -> list[str]:
    """Return the names of the records; raise TeacherError when the archive's directory cannot be read."""
    with _opened(path) as archive:
        return archive.namelist()


def write_archive(records: dict[str, bytes]) -> io.BytesIO:
    """Return a new archive in memory, so that the next reader gets exactly the records that were checked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    buffer.seek(0)
    return buffer


def _check_directory(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise TeacherError for duplicate names, unusual compression and zip bombs."""
    entries = archive.infolist()
    # Python distinguishes capitals in names, torch does not.
    if len({entry.filename.lower() for entry in entries}) != len(entries):
        raise TeacherError(
            f"{path} has two records with one name, so readers can get different contents; save it again"
        )
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise TeacherError(f"{path} uses a compression that torch does not write; save it again with torch")
    unpacked, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > max(_ALWAYS_ALLOWED, _MAX_RATIO * packed):
        raise TeacherError(f"{path} has {packed:,} bytes but unpacks to {unpacked:,}; refused as a zip bomb")
