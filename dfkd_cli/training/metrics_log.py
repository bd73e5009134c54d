"""`metrics.jsonl`: one line of JSON for every event of a run."""

import json
import os
from pathlib import Path
from typing import Self

from dfkd_cli.training.engine import Event


class MetricsLog:
    """Appends events to a file, and can go back to what it held at a checkpoint."""

    def __init__(self, path: Path):
        self.file = path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, event: Event, seconds: float) -> None:
        """Adds a line; `seconds` of training before it."""
        line = {"time_s": round(seconds, 3), **event._asdict()}
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()

    def size(self) -> int:
        """Bytes so far, all of them on the disk."""
        os.fsync(self.file.fileno())
        return self.file.tell()

    def cut(self, size: int) -> None:
        """Forgets all but the first `size` bytes."""
        self.file.truncate(size)
        self.file.seek(size)
