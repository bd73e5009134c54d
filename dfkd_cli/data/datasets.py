"""Labelled images for evaluation. No method receives them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets as torchvision_datasets

from dfkd_cli.data.class_file import read_class_file
from dfkd_cli.data.class_folders import find_class_folders, number_folders
from dfkd_cli.data.class_numbers import by_name, check_order, same_order, shown, strange_to
from dfkd_cli.data.contents import Contents
from dfkd_cli.data.decoding import decoded_batches, unreadable
from dfkd_cli.data.fitting import MODES
from dfkd_cli.data.label_options import NO_LABEL_OPTIONS, LabelOptions
from dfkd_cli.data.reading import ImageReader, ReadOptions
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec

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
    class_names: tuple[str, ...]  # of all classes of the network, by number
    labels: tuple[int, ...]  # one per image
    spec: InputSpec  # of the network whose input `batches` yields by default
    open_image: Callable[[int], Image.Image]  # in the mode L, LA, RGB or RGBA
    reader: ImageReader | None = None  # of image files
    contents: Contents = field(default_factory=Contents)

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
    where: str,
    spec: InputSpec,
    flag: str = "--data",
    options: ReadOptions | None = None,
    labels: LabelOptions = NO_LABEL_OPTIONS,
) -> LabelledImages:
    """Return the labelled images at `where` for a network with the input `spec`; `flag` is named in error messages.

    `where` is a folder with one sub-folder per class, or NAME:ROOT with NAME one of cifar10, cifar100, mnist,
    fashion-mnist: the test split as torchvision stores it. Nothing is downloaded. The classes are found by the names in
    the file `labels.classes` or in `spec`; without names, those of a folder are numbered in the order of the names.

    Image files are read with `options`. Images are scaled and cropped by the preprocessing of `spec`. Colours are
    converted to grey for a network with one channel, grey is repeated for three channels, and transparency is dropped.

    Raises UsageError if `where` does not exist, holds no images, or if its classes are not those of the network or
    their order is not known.
    """
    if spec.size[0] not in MODES:
        raise UsageError(f"images have 1 to 4 channels, the network takes {spec.size[0]}: it cannot be evaluated here")
    if not where:
        raise UsageError(f"{flag} is empty; give a folder (is a shell variable unset?)")
    names = known_names(spec, labels)
    name, colon, root = where.partition(":")
    # A Windows drive letter and a folder with a colon in its name are not data set names.
    if colon and name in _PACKED and not Path(where).exists():
        if labels.class_order is not None:
            raise UsageError(f"--class-order is for class folders; {where} numbers its classes itself")
        return _open_packed(where, name, root, spec, names, flag)
    if colon and name.isidentifier() and len(name) > 1 and not Path(where).exists():
        raise UsageError(f"{flag} {where}: unknown data set '{name}'; use a folder or one of {', '.join(_PACKED)}")
    return _open_folder(where, spec, names, flag, ImageReader(options), labels)


def known_names(spec: InputSpec, options: LabelOptions) -> tuple[str, ...]:
    """Return the class names in the file `options.classes`, or those of the network; () when nothing states them.

    Raises UsageError when both give the same names in another order.
    """
    check_order(options.class_order)
    if options.classes is None:
        return spec.class_names
    if options.class_order is not None:
        raise UsageError("--classes and --class-order exclude each other: the file states the order")
    names = read_class_file(options.classes, spec.num_classes)
    if spec.class_names and not same_order(names, spec.class_names):
        raise UsageError(
            f"--classes {options.classes} numbers the classes {shown(names)}, but the network's own class names are "
            f"{shown(spec.class_names)}; leave the option out, or correct the file"
        )
    return names


def _open_packed(
    where: str, name: str, root: str, spec: InputSpec, names: tuple[str, ...], flag: str
) -> LabelledImages:
    dataset_class, below = _PACKED[name]
    hint = f"{flag} {where}: torchvision finds no complete {name} there; it needs {Path(root) / below}"
    try:
        packed = dataset_class(root or ".", train=False, download=False)
    # Parsing a damaged idx file can raise any of these.
    except (RuntimeError, OSError, ValueError, AssertionError, IndexError, KeyError, EOFError) as error:
        raise UsageError(hint) from error
    if len(packed) == 0 or len(packed.data) != len(packed.targets):
        raise UsageError(hint)
    own = tuple(packed.classes)
    numbers: list[int | None] = list(range(len(own)))
    if names:
        # MNIST's "0 - zero" is called 0, zero, or both.
        numbers = by_name([(of, *of.split(" - ")) for of in own], names)
        if None in numbers:
            strange = [of for of, number in zip(own, numbers, strict=True) if number is None]
            raise UsageError(
                f"{flag} {where}: {strange_to(names, strange)}; give --classes FILE with the names of "
                f"torchvision ({shown(own)}) in the order of the network's classes"
            )
    elif len(own) != spec.num_classes:
        raise UsageError(f"{flag} {where} has {len(own)} classes ({shown(own)}), the network has {spec.num_classes}")
    labels = tuple(cast(int, numbers[int(label)]) for label in packed.targets)
    contents = Contents(
        "class names of the network" if names else "class numbers of the data set",
        _without_images(names or own, labels),
    )
    return LabelledImages(where, names or own, labels, spec, lambda index: packed[index][0], None, contents)


def _open_folder(
    where: str, spec: InputSpec, names: tuple[str, ...], flag: str, reader: ImageReader, options: LabelOptions
) -> LabelledImages:
    root = Path(where)
    if not root.is_dir():
        raise UsageError(f"{flag} {where}: {'not a folder' if root.exists() else 'no such folder'}")
    found = find_class_folders(f"{flag} {where}", root)
    numbering = number_folders(found, spec.num_classes, names, options.class_order)
    pairs = [(file, label) for label, of in zip(numbering.numbers, found.files, strict=True) for file in of]
    # By class number, as the folders would be visited if they were sorted in the order of the classes.
    pairs.sort(key=lambda pair: pair[1])
    damaged = unreadable([file for file, _ in pairs], reader) if options.skip_unreadable else frozenset()
    pairs = [pair for pair in pairs if pair[0] not in damaged]
    if not pairs:
        raise UsageError(f"{flag} {where}: none of its {len(damaged):,} image files can be read")
    files, labels = [file for file, _ in pairs], tuple(label for _, label in pairs)
    contents = Contents(
        numbering.order,
        _without_images(numbering.names, labels),
        dict(found.all_passed_over()),
        tuple(sorted(str(file.relative_to(root)) for file in damaged)),
    )
    return LabelledImages(
        where, numbering.names, labels, spec, lambda index: reader.open(files[index]), reader, contents
    )


def _without_images(names: tuple[str, ...], labels: tuple[int, ...]) -> tuple[str, ...]:
    seen = set(labels)
    return tuple(name for number, name in enumerate(names) if number not in seen)
