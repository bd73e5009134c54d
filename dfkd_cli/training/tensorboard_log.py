"""The metrics of a run for TensorBoard, an optional extra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from dfkd_cli.errors import UsageError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

    from dfkd_cli.training.event import Event
    from dfkd_cli.training.session import Listener


class TensorBoardLog:
    """A listener that passes everything to another listener and writes the metrics of every event into `folder`.

    The x axis is the student step; for metrics of the warm-up, below `warm-up/`, it is the number of the event. The
    folder is created at the first event. Raises UsageError when the extra is not installed, and at the first event
    when the folder cannot be written.
    """

    def __init__(self, folder: Path, listener: Listener):
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise UsageError(f"--tensorboard {folder} needs: pip install 'dfkd[tensorboard]'") from error
        self.folder, self.listener = folder, listener
        self.make_writer = SummaryWriter
        self.writer: SummaryWriter | None = None
        self.warmup_events = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def note(self, text: str) -> None:
        """Pass the note on."""
        self.listener.note(text)

    def event(self, event: Event) -> None:
        """Pass the event on and write its metrics; a list becomes one curve per entry."""
        self.listener.event(event)
        writer = self._opened()
        self.warmup_events += event.phase == "warm-up"
        prefix, step = ("warm-up/", self.warmup_events) if event.phase == "warm-up" else ("", event.step)
        for name, value in event.metrics.items():
            entries = (
                {f"{name}/{i}": entry for i, entry in enumerate(value)} if isinstance(value, list) else {name: value}
            )
            for tag, entry in entries.items():
                writer.add_scalar(prefix + tag, entry, step)

    def _opened(self) -> SummaryWriter:
        if self.writer is None:
            try:
                self.writer = self.make_writer(str(self.folder))
            except OSError as error:
                raise UsageError(f"--tensorboard {self.folder}: cannot write there: {error.strerror}") from error
        return self.writer
