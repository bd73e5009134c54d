"""A folder of unlabelled images, on which the predictions of two networks are compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dfkd_cli.data.decoding import decoded_batches
from dfkd_cli.data.image_files import MODES, image_files_below, open_image, suffixes
from dfkd_cli.errors import UsageError


@dataclass(frozen=True)
class UnlabelledImages:
    """Image files without labels. They are decoded while they are read."""

    files: tuple[Path, ...]

    def batches(self, batch_size: int, size: tuple[int, int, int]) -> Iterator[Tensor]:
        """Yield images [B, C, H, W] in [0, 1] in the size (C, H, W), resized as those of `open_dataset`.

        Raises UsageError that names the file if an image cannot be decoded.
        """
        return decoded_batches(lambda index: open_image(self.files[index]), len(self.files), batch_size, size)


def open_unlabelled(folder: str, channels: int, flag: str = "--images") -> UnlabelledImages:
    """Return the image files in and below `folder`; `flag` is named in error messages.

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
    return UnlabelledImages(tuple(files))
