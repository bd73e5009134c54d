"""Files that are written whole or not at all."""

import os
import uuid
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds either what it held before or all of `content`."""
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` of text in UTF-8; what UTF-8 cannot hold is written as `printable` does."""
    write_atomically(path, printable(text).encode())


def printable(text: str) -> str:
    """The text with an escape sequence for everything UTF-8 cannot hold: file names may hold any byte."""
    return text.encode(errors="backslashreplace").decode()
