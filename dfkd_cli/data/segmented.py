"""Images with masks for the evaluation of segmentation networks. No method receives them."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets as torchvision_datasets

from dfkd_cli.data.decoding import DECODING_THREADS
from dfkd_cli.data.fitting import MODES, fitted
from dfkd_cli.data.image_files import image_files_below
from dfkd_cli.data.mask_files import read_mask
from dfkd_cli.data.reading import ImageReader, ReadOptions
from dfkd_cli.errors import UsageError
from dfkd_cli.networks.classifier import InputSpec, Preprocessing

WHOLE = Preprocessing(crop_mode="squash")
IGNORED = 255  # the value of pixels that never count, by convention
_VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(frozen=True)
class MaskOptions:
    """What the user says about masks."""

    ignored: tuple[int, ...] = ()  # values of pixels that do not count, besides `IGNORED`
    class_names: Path | None = None  # a text file with one name per line, in the order of the classes

    def check_unused(self) -> None:
        """Raise UsageError when an option is given, for a network that gives each image one class."""
        if words := self.as_words():
            hint = "; use --classes" if words[0] == "--class-names" else ""
            raise UsageError(f"{words[0]} is for images with masks, but the network classifies images{hint}")

    def as_words(self) -> tuple[str, ...]:
        """Return the command-line words that give these options."""
        words = [word for value in self.ignored for word in ("--ignore-index", str(value))]
        return (*words, *(() if self.class_names is None else ("--class-names", str(self.class_names))))


@dataclass(frozen=True)
class SegmentedImages:
    """Image files with mask files. They are decoded while they are read."""

    where: str  # as the user typed it
    class_names: tuple[str, ...]
    pairs: tuple[tuple[Path, Path], ...]  # image file and mask file
    ignored: frozenset[int]  # values in the mask files
    classes: Mapping[int, int] | None  # class of each value in the mask files; None if the values are the classes
    reader: ImageReader

    def __len__(self) -> int:
        return len(self.pairs)

    def first(self, count: int) -> "SegmentedImages":
        """Return the first `count` images."""
        return replace(self, pairs=self.pairs[:count])

    def batches(self, batch_size: int, spec: InputSpec) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield images [B, C, H, W] in [0, 1], resized to the size of `spec`, and their masks as they are, [h, w] each.

        Whole images are resized, so that every pixel of a mask has one of the image. Raises UsageError that names the
        file if an image or a mask cannot be used.
        """
        whole = replace(spec, preprocessing=WHOLE)
        with ThreadPoolExecutor(DECODING_THREADS) as threads:
            for first in range(0, len(self), batch_size):
                pairs = self.pairs[first : first + batch_size]
                read = list(threads.map(lambda pair: self._read(pair[0], pair[1], whole), pairs))
                images = torch.from_numpy(np.stack([image for image, _ in read])).permute(0, 3, 1, 2)
                yield images.float().div(255.0), [mask for _, mask in read]

    def _read(self, image: Path, mask: Path, spec: InputSpec) -> tuple[np.ndarray, Tensor]:
        opened = self.reader.open(image)
        found = read_mask(mask, len(self.class_names), self.ignored, self.classes)
        if found.shape != (opened.height, opened.width):
            raise UsageError(
                f"the mask {mask} has {found.shape[1]}x{found.shape[0]} pixels, its image {image.name} has "
                f"{opened.width}x{opened.height}"
            )
        return fitted(opened, spec), found


def open_segmented(
    where: str, spec: InputSpec, options: MaskOptions, read_options: ReadOptions | None = None, flag: str = "--data"
) -> SegmentedImages:
    """Return the images with masks at `where` for a network with the input `spec`; `flag` is named in errors.

    `where` is a folder with `images/` and `masks/`, whose files have equal names apart from the suffix, or voc:ROOT or
    cityscapes:ROOT: the validation split as torchvision stores it. Nothing is downloaded. Raises UsageError.
    """
    if spec.size[0] not in MODES:
        raise UsageError(f"images have 1 to 4 channels, the network takes {spec.size[0]}: it cannot be evaluated here")
    kind, colon, root = where.partition(":")
    if colon and kind in _PACKED and not Path(where).exists():
        pairs, names, classes = _PACKED[kind](where, root, flag)
    else:
        pairs, names, classes = _open_folder(Path(where), flag), None, None
    if options.class_names is not None:
        names = _read_names(options.class_names)
    names = tuple(map(str, range(spec.num_classes))) if names is None else names
    if len(names) != spec.num_classes:
        source = f"--class-names {options.class_names}" if options.class_names is not None else f"{flag} {where}"
        raise UsageError(
            f"{source} has {len(names)} classes ({', '.join(names[:3])}, ...), the network {spec.num_classes}"
        )
    ignored = frozenset((*options.ignored, *_uncounted(classes, spec)))
    return SegmentedImages(where, names, pairs, ignored, classes, ImageReader(read_options))


def _uncounted(classes: Mapping[int, int] | None, spec: InputSpec) -> list[int]:
    """Return the values that do not count by convention."""
    if classes is not None:
        return [value for value in range(256) if value not in classes]
    return [IGNORED] if spec.num_classes <= IGNORED else []


def _open_folder(root: Path, flag: str) -> tuple[tuple[Path, Path], ...]:
    """Return the pairs of `images/` and `masks/`. Raises UsageError that names a file without its partner."""
    if not root.is_dir():
        raise UsageError(f"{flag} {root}: {'not a folder' if root.exists() else 'no such folder'}")
    found: list[dict[Path, Path]] = []
    for name in ("images", "masks"):
        if not (root / name).is_dir():
            raise UsageError(
                f"{flag} {root}: there is no folder {name}; a segmentation network needs images/ and masks/"
            )
        files: dict[Path, Path] = {}
        for file in image_files_below(root / name):
            stem = file.relative_to(root / name).with_suffix("")
            if stem in files:
                raise UsageError(f"{flag} {root}: {files[stem]} and {file} have the same name")
            files[stem] = file
        found.append(files)
    images, masks = found
    for some, others, kind in ((images, masks, "mask"), (masks, images, "image")):
        if alone := sorted(some.keys() - others.keys()):
            raise UsageError(f"{flag} {root}: {some[alone[0]]} has no {kind} ({len(alone)} such files)")
    if not images:
        raise UsageError(f"{flag} {root}: no image files in images/")
    return tuple((images[stem], masks[stem]) for stem in sorted(images))


Packed = tuple[tuple[tuple[Path, Path], ...], tuple[str, ...], Mapping[int, int] | None]


def _open_voc(where: str, root: str, flag: str) -> Packed:
    try:
        packed = torchvision_datasets.VOCSegmentation(root or ".", "2012", "val", download=False)
    except (RuntimeError, OSError, ValueError) as error:
        raise UsageError(f"{flag} {where}: torchvision finds no VOCdevkit/VOC2012 there") from error
    pairs = tuple((Path(image), Path(mask)) for image, mask in zip(packed.images, packed.masks, strict=True))
    return pairs, _VOC_CLASSES, None


def _open_cityscapes(where: str, root: str, flag: str) -> Packed:
    try:
        packed = torchvision_datasets.Cityscapes(root or ".", "val", mode="fine", target_type="semantic")
    except (RuntimeError, OSError, ValueError) as error:
        raise UsageError(f"{flag} {where}: torchvision finds no leftImg8bit/val and gtFine/val there") from error
    trained = [known for known in packed.classes if 0 <= known.train_id < IGNORED]
    names = tuple(known.name for known in sorted(trained, key=lambda known: known.train_id))
    pairs = tuple((Path(image), Path(masks[0])) for image, masks in zip(packed.images, packed.targets, strict=True))
    return pairs, names, {known.id: known.train_id for known in trained}


_PACKED = {"voc": _open_voc, "cityscapes": _open_cityscapes}


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--class-names {path} cannot be read as text") from error
    return tuple(line.strip() for line in lines if line.strip())
