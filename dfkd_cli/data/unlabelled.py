"""A folder of unlabelled images, on which the predictions of two networks are compared."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dfkd_cli.data.contents import Contents
from dfkd_cli.data.decoding import decoded_batches, unreadable
from dfkd_cli.data.fitting import MODES
from dfkd_cli.data.image_files import described, image_files_below
from dfkd_cli.data.reading import ImageReader, ReadOptions
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec


@dataclass(frozen=True)
class UnlabelledImages:
    """Image files without labels. They are decoded while they are read."""

    folder: str  # as the user typed it
    files: tuple[Path, ...]
    reader: ImageReader
    contents: Contents

    def batches(self, batch_size: int, spec: InputSpec) -> Iterator[Tensor]:
        """Yield images [B, C, H, W] in [0, 1] for a network with the input `spec`, as those of `open_dataset`.

        Raises UsageError that names the file if an image cannot be decoded.
        """
        return decoded_batches(lambda index: self.reader.open(self.files[index]), len(self.files), batch_size, spec)


def open_unlabelled(
    folder: str,
    channels: int,
    flag: str = "--images",
    options: ReadOptions | None = None,
    skip_unreadable: bool = False,
) -> UnlabelledImages:
    """Return the image files in and below `folder`, read with `options`; `flag` is named in error messages.

    With `skip_unreadable` the files that cannot be decoded are left out. Raises UsageError when there is no such folder
    or no image file in it that can be read, and when image files do not have so many channels.
    """
    if channels not in MODES:
        raise UsageError(f"{flag} {folder}: image files have 1 to 4 channels, the network needs {channels}")
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"{flag} {folder}: {'not a folder' if root.exists() else 'no such folder'}")
    passed_over: Counter[str] = Counter()
    files = image_files_below(root, passed_over)
    if not files:
        raise UsageError(f"{flag} {folder}: no image files in it; {described(passed_over)}")
    reader = ImageReader(options)
    damaged = unreadable(files, reader) if skip_unreadable else frozenset()
    if len(damaged) == len(files):
        raise UsageError(f"{flag} {folder}: none of its {len(files):,} image files can be read")
    skipped = tuple(sorted(str(file.relative_to(root)) for file in damaged))
    readable = tuple(file for file in files if file not in damaged)
    return UnlabelledImages(folder, readable, reader, Contents(passed_over=dict(passed_over), unreadable=skipped))
