"""Labelled images for evaluation. No method receives them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets as torchvision_datasets

from dfkd_cli.data.decoding import decoded_batches
from dfkd_cli.data.fitting import MODES
from dfkd_cli.data.image_files import image_files_below, suffixes
from dfkd_cli.data.reading import ImageReader, ReadOptions
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec

_SPLIT_NAMES = {"test", "train", "val", "valid", "validation"}
# name -> (torchvision's class, the path below ROOT that it reads)
_PACKED = {
    "cifar10": (torchvision_datasets.CIFAR10, "cifar-10-batches-py"),
    "cifar100": (torchvision_datasets.CIFAR100, "cifar-100-python"),
    "mnist": (torchvision_datasets.MNIST, "MNIST/raw"),
    "fashion-mnist": (torchvision_datasets.FashionMNIST, "FashionMNIST/raw"),
}


@dataclass(frozen=True)
class LabelledImages:
    """Images with labels. They are decoded while they are read, so a set can be larger than the memory."""

    where: str  # as the user typed it
    class_names: tuple[str, ...]
    labels: tuple[int, ...]  # one per image
    spec: InputSpec  # of the network whose input `batches` yields by default
    open_image: Callable[[int], Image.Image]  # in the mode L, LA, RGB or RGBA
    reader: ImageReader | None = None  # of image files

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, spec: InputSpec | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [B, C, H, W] in [0, 1] and labels [B] in order; the last batch can be smaller.

        Raises UsageError that names the file if an image cannot be decoded.
        """
        first = 0
        for images in decoded_batches(self.open_image, len(self), batch_size, spec or self.spec):
            yield images, torch.tensor(self.labels[first : first + len(images)])
            first += len(images)


def open_dataset(
    where: str, spec: InputSpec, flag: str = "--data", options: ReadOptions | None = None
) -> LabelledImages:
    """Return the labelled images at `where` for a network with the input `spec`; `flag` is named in error messages.

    Image files are read with `options`.

    `where` is a folder with one sub-folder per class, numbered alphabetically, or NAME:ROOT with NAME one of cifar10,
    cifar100, mnist, fashion-mnist: the test split as torchvision stores it. Nothing is downloaded.

    Images are scaled and cropped by the preprocessing of `spec`. Colours are converted to grey for a network with one
    channel, grey is repeated for three channels, and transparency is dropped.

    Raises UsageError if `where` does not exist, holds no images, or has another number of classes than the network.
    """
    if spec.size[0] not in MODES:
        raise UsageError(f"images have 1 to 4 channels, the network takes {spec.size[0]}: it cannot be evaluated here")
    if not where:
        raise UsageError(f"{flag} is empty; give a folder (is a shell variable unset?)")
    name, colon, root = where.partition(":")
    # A Windows drive letter and a folder with a colon in its name are not data set names.
    if colon and name in _PACKED and not Path(where).exists():
        data = _open_packed(where, name, root, spec, flag)
    elif colon and name.isidentifier() and len(name) > 1 and not Path(where).exists():
        raise UsageError(f"{flag} {where}: unknown data set '{name}'; use a folder or one of {', '.join(_PACKED)}")
    else:
        data = _open_folder(where, spec, flag, ImageReader(options))
    if len(data.class_names) != spec.num_classes:
        raise UsageError(_class_count_message(data, spec.num_classes, flag))
    return data


def _open_packed(where: str, name: str, root: str, spec: InputSpec, flag: str) -> LabelledImages:
    dataset_class, below = _PACKED[name]
    hint = f"{flag} {where}: torchvision finds no complete {name} there; it needs {Path(root) / below}"
    try:
        packed = dataset_class(root or ".", train=False, download=False)
    # Parsing a damaged idx file can raise any of these.
    except (RuntimeError, OSError, ValueError, AssertionError, IndexError, KeyError, EOFError) as error:
        raise UsageError(hint) from error
    if len(packed) == 0 or len(packed.data) != len(packed.targets):
        raise UsageError(hint)
    labels = tuple(int(label) for label in packed.targets)
    return LabelledImages(where, tuple(packed.classes), labels, spec, lambda index: packed[index][0])


def _open_folder(where: str, spec: InputSpec, flag: str, reader: ImageReader) -> LabelledImages:
    root = Path(where)
    if not root.is_dir():
        raise UsageError(f"{flag} {where}: {'not a folder' if root.exists() else 'no such folder'}")
    # Hidden folders, such as .ipynb_checkpoints, are not classes.
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        problem = "its image files are not in sub-folders" if image_files_below(root) else "it is empty"
        raise UsageError(f"{flag} {where}: {problem}; evaluation needs one sub-folder of image files per class")
    files: list[Path] = []
    labels: list[int] = []
    empty: list[str] = []
    for label, folder in enumerate(folders):
        found = image_files_below(folder)
        files += found
        labels += [label] * len(found)
        empty += [] if found else [folder.name]
    if not files:
        raise UsageError(f"{flag} {where}: no image files in its sub-folders ({', '.join(suffixes())})")
    if empty:
        raise UsageError(f"{flag} {where}: no image files in these class folders: {', '.join(empty)}")
    names = tuple(folder.name for folder in folders)
    return LabelledImages(where, names, tuple(labels), spec, lambda index: reader.open(files[index]), reader)


def _class_count_message(data: LabelledImages, num_classes: int, flag: str) -> str:
    names = data.class_names
    listed = ", ".join(names[:3]) + (", ..." if names[3:] else "")
    count = f"{len(names)} {'class' if len(names) == 1 else 'classes'} ({listed})"
    message = f"{flag} {data.where} has {count}, the network has {num_classes}"
    splits = [name for name in names if name.lower() in _SPLIT_NAMES]
    return f"{message}; did you mean {Path(data.where) / splits[0]}?" if splits else message
