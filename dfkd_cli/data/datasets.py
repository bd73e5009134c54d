"""Labelled images for evaluation, and only for that: no method ever sees them."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets as torchvision_datasets

from dfkd_cli.data.image_files import (
    DECODING_THREADS,
    MODES,
    around,
    as_array,
    is_new,
    is_picture,
    open_picture,
    suffixes,
)
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec

_SPLIT_NAMES = {"test", "train", "val", "valid", "validation"}
# name -> (torchvision's class, what it wants to find below ROOT)
_PACKED = {
    "cifar10": (torchvision_datasets.CIFAR10, "cifar-10-batches-py"),
    "cifar100": (torchvision_datasets.CIFAR100, "cifar-100-python"),
    "mnist": (torchvision_datasets.MNIST, "MNIST/raw"),
    "fashion-mnist": (torchvision_datasets.FashionMNIST, "FashionMNIST/raw"),
}


@dataclass(frozen=True)
class LabelledImages:
    """Pictures with their class, decoded while they are read: a set larger than the memory is fine."""

    where: str  # as the user typed it
    class_names: tuple[str, ...]
    labels: tuple[int, ...]  # one per picture
    size: tuple[int, int, int]  # channels, height, width that `batches` gives by default
    open_picture: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, size: tuple[int, int, int] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images [B, C, H, W] in [0, 1] and labels [B], in order, the last batch possibly smaller.

        Raises UsageError naming the file when a picture cannot be decoded.
        """
        channels, height, width = size or self.size

        def read(indices: range) -> list[np.ndarray]:
            return [as_array(self.open_picture(index), channels, height, width) for index in indices]

        threads = DECODING_THREADS
        with ThreadPoolExecutor(threads) as pool:
            # Pillow decodes outside the interpreter's lock, so threads are enough; the batch after the one that the
            # network works on is decoded meanwhile. One task per slice: a task per small picture costs more than it.
            def start(first: int) -> list[Future[list[np.ndarray]]]:
                indices = range(first, min(first + batch_size, len(self)))
                return [pool.submit(read, indices[k::threads]) for k in range(threads)]

            tasks = start(0)
            for first in range(0, len(self), batch_size):
                slices, tasks = [task.result() for task in tasks], start(first + batch_size)
                count = min(batch_size, len(self) - first)
                pictures = [slices[index % threads][index // threads] for index in range(count)]
                images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
                yield images.float().div(255), torch.tensor(self.labels[first : first + count])


def open_dataset(where: str, spec: InputSpec, flag: str = "--data") -> LabelledImages:
    """The evaluation images at `where`, as `flag` of the command names it, prepared for a network that takes `spec`.

    `where` is an ImageFolder tree (one folder per class, numbered alphabetically) or NAME:ROOT with NAME one of
    cifar10, cifar100, mnist, fashion-mnist: the test split as torchvision stores it, never downloaded.

    A picture of another size is resized with Pillow's bilinear filter until it covers height and width, then cropped
    in its centre; one of the right size stays untouched. Colours become grey for a network of one channel, grey is
    repeated for one of three, transparency is dropped.

    Raises UsageError: nothing there, no pictures, or another number of classes than the network's.
    """
    if spec.size[0] not in MODES:
        raise UsageError(f"pictures have 1 to 4 channels, the network takes {spec.size[0]}: no evaluation here")
    if not where:
        raise UsageError(f"{flag} names no folder: it is empty, as a variable of the shell may be")
    name, colon, root = where.partition(":")
    # A Windows drive and a folder with a colon in its name are folders.
    if colon and name in _PACKED and not Path(where).exists():
        data = _open_packed(where, name, root, spec, flag)
    elif colon and name.isidentifier() and len(name) > 1 and not Path(where).exists():
        raise UsageError(f"{flag} {where}: unknown data set '{name}'; use a folder or one of {', '.join(_PACKED)}")
    else:
        data = _open_folder(where, spec, flag)
    if len(data.class_names) != spec.num_classes:
        raise UsageError(_class_count_message(data, spec.num_classes, flag))
    return data


def _open_packed(where: str, name: str, root: str, spec: InputSpec, flag: str) -> LabelledImages:
    dataset_class, below = _PACKED[name]
    hint = f"{flag} {where}: torchvision finds no complete {name} there; it needs {Path(root) / below}"
    try:
        packed = dataset_class(root or ".", train=False, download=False)
    # A damaged idx file ends in whatever its parsing trips over.
    except (RuntimeError, OSError, ValueError, AssertionError, IndexError, KeyError, EOFError) as error:
        raise UsageError(hint) from error
    if len(packed) == 0 or len(packed.data) != len(packed.targets):
        raise UsageError(hint)
    labels = tuple(int(label) for label in packed.targets)
    return LabelledImages(where, tuple(packed.classes), labels, spec.size, lambda index: packed[index][0])


def _open_folder(where: str, spec: InputSpec, flag: str) -> LabelledImages:
    root = Path(where)
    if not root.is_dir():
        raise UsageError(f"{flag} {where}: {'not a folder' if root.exists() else 'no such folder'}")
    # Hidden folders (.ipynb_checkpoints) are nobody's class.
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        problem = "its pictures lie side by side" if _pictures_below(root) else "it is empty"
        raise UsageError(f"{flag} {where}: {problem}; evaluation needs one sub-folder of pictures per class")
    files: list[Path] = []
    labels: list[int] = []
    empty: list[str] = []
    for label, folder in enumerate(folders):
        found = _pictures_below(folder)
        files += found
        labels += [label] * len(found)
        empty += [] if found else [folder.name]
    if not files:
        raise UsageError(f"{flag} {where}: no pictures in its {len(folders)} sub-folders ({', '.join(suffixes())})")
    if empty:
        raise UsageError(f"{flag} {where}: no pictures in the class folder {empty[0]} ({len(empty)} without any)")
    names = tuple(folder.name for folder in folders)
    return LabelledImages(where, names, tuple(labels), spec.size, lambda index: open_picture(files[index]))


def _pictures_below(folder: Path) -> list[Path]:
    """Pictures in and below `folder`, sorted. Links are followed, but no folder is entered twice, nor one around it."""
    known, found = around(folder), []
    for parent, inner, names in os.walk(folder, followlinks=True):
        found += [Path(parent) / name for name in names if is_picture(name)]
        inner[:] = [name for name in sorted(inner) if not name.startswith(".") and is_new(Path(parent) / name, known)]
    return sorted(found)


def _class_count_message(data: LabelledImages, num_classes: int, flag: str) -> str:
    names = data.class_names
    message = f"{flag} {data.where} has {len(names)} classes ({', '.join(names[:3])}{', ...' if names[3:] else ''})"
    message += f", the network has {num_classes}"
    splits = [name for name in names if name.lower() in _SPLIT_NAMES]
    return f"{message}; did you mean {Path(data.where) / splits[0]}?" if splits else message
