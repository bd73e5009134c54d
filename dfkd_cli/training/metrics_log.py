"""`metrics.jsonl`: one JSON object per line and event of a run."""

import json
import os
from pathlib import Path
from typing import Self

from dfkd_cli.training.event import Event


class MetricsLog:
    """Appends events to a file, which can be truncated to its size at a checkpoint."""

    def __init__(self, path: Path):
        self.file = path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, event: Event, seconds: float) -> None:
        """Append an event as a line. `seconds` is the training time before it."""
        line = {"time_s": round(seconds, 3), **event._asdict()}
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()

    def size(self) -> int:
        """Write the file to the disk and return its size in bytes."""
        os.fsync(self.file.fileno())
        return self.file.tell()

    def cut(self, size: int) -> None:
        """Truncate the file to its first `size` bytes."""
        self.file.truncate(size)
        self.file.seek(size)
