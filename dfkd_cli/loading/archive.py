"""Reads zip archives that may be damaged or hostile, and writes clean copies of them."""

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from dfkd_cli.errors import TeacherError

# Weights are stored uncompressed; only code and debug records are deflated. Anything that swells more is a zip bomb.
_MOST_SWELLING = 50
_ALWAYS_ALLOWED = 64 * 2**20


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; raises TeacherError for all that reading it inside the block trips over."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise TeacherError(f"{path} is a damaged zip archive ({error}); copy or download it again") from error


def read_archive(path: Path) -> dict[str, bytes]:
    """Every record of a zip file by name, with checksums verified.

    Raises TeacherError for truncated or altered records, duplicate names, encryption and absurd sizes.
    """
    with _opened(path) as archive:
        _check_directory(path, archive)
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def check_archive(path: Path) -> None:
    """Like `read_archive`, for files another reader opens afterwards: checks every record, keeps none."""
    with _opened(path) as archive:
        _check_directory(path, archive)
        broken = archive.testzip()
    if broken is not None:
        raise TeacherError(f"{path} is a damaged zip archive (bad checksum of {broken!r}); copy or download it again")


def list_archive(path: Path) -> list[str]:
    """Names of the records; raises TeacherError when the directory of the archive cannot be read."""
    with _opened(path) as archive:
        return archive.namelist()


def write_archive(records: dict[str, bytes]) -> io.BytesIO:
    """A fresh archive in memory, so that the reader after us sees exactly the records that were checked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    buffer.seek(0)
    return buffer


def _check_directory(path: Path, archive: zipfile.ZipFile) -> None:
    """Raises TeacherError when the archive's directory promises what no honest archive would."""
    entries = archive.infolist()
    # Python tells capitals apart; torch, which finds records by the same rule as Windows, does not.
    if len({entry.filename.lower() for entry in entries}) != len(entries):
        raise TeacherError(f"{path} holds two records of one name; such an archive shows readers different contents")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise TeacherError(f"{path} uses a compression that torch does not write")
    unpacked, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > max(_ALWAYS_ALLOWED, _MOST_SWELLING * packed):
        raise TeacherError(f"{path} has {packed:,} bytes but unpacks to {unpacked:,}; refused as a zip bomb")
