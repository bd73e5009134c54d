"""A folder of unlabelled images, on which the predictions of two networks are compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dfkd_cli.data.decoding import decoded_batches
from dfkd_cli.data.fitting import MODES
from dfkd_cli.data.image_files import image_files_below, suffixes
from dfkd_cli.data.reading import ImageReader, ReadOptions
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec


@dataclass(frozen=True)
class UnlabelledImages:
    """Image files without labels. They are decoded while they are read."""

    folder: str  # as the user typed it
    files: tuple[Path, ...]
    reader: ImageReader

    def batches(self, batch_size: int, spec: InputSpec) -> Iterator[Tensor]:
        """Yield images [B, C, H, W] in [0, 1] for a network with the input `spec`, as those of `open_dataset`.

        Raises UsageError that names the file if an image cannot be decoded.
        """
        return decoded_batches(lambda index: self.reader.open(self.files[index]), len(self.files), batch_size, spec)


def open_unlabelled(
    folder: str, channels: int, flag: str = "--images", options: ReadOptions | None = None
) -> UnlabelledImages:
    """Return the image files in and below `folder`, read with `options`; `flag` is named in error messages.

    Raises UsageError when there is no such folder or no image file in it, and when image files do not have so many
    channels.
    """
    if channels not in MODES:
        raise UsageError(f"{flag} {folder}: image files have 1 to 4 channels, the network needs {channels}")
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"{flag} {folder}: {'not a folder' if root.exists() else 'no such folder'}")
    files = image_files_below(root)
    if not files:
        raise UsageError(f"{flag} {folder}: no image files in it ({', '.join(suffixes())})")
    return UnlabelledImages(folder, tuple(files), ImageReader(options))
