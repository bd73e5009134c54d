"""Write a file completely or not at all."""

import os
import uuid
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file such that `path` has either its earlier content or all of `content`."""
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """Write `printable(text)` in UTF-8 as `write_atomically` does."""
    write_atomically(path, printable(text).encode())


def printable(text: str) -> str:
    """Return the text with escape sequences for what UTF-8 cannot encode: file names may contain any byte."""
    return text.encode(errors="backslashreplace").decode()
