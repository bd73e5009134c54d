"""A folder of unlabelled images, which is read once as a stream."""

import math
import os
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfkd_cli.data.decoding import DECODING_THREADS
from dfkd_cli.data.fitting import fitted
from dfkd_cli.data.image_files import (
    count_hidden_folders,
    described,
    enclosing_folders,
    is_image_folder,
    is_new_folder,
    why_no_image,
)
from dfkd_cli.data.reading import ImageReader
from dfkd_cli.data.value_range import ValueRangeError
from dfkd_cli.errors import UsageError
from dfkd_cli.machine.world.world import ALONE, World
from dfkd_cli.networks.classifier import InputSpec

CHUNKS_AHEAD = 4  # decoded in advance
OPEN_FOLDERS = 256  # listed in turns; each needs a file descriptor, and processes often have 1024
FILES_PER_TURN = 16
DIGEST_BYTES = 16


class Chunk(NamedTuple):
    """Some images of the pool."""

    files: list[str]  # paths relative to the pool, one per image
    digests: list[bytes]  # one per image, equal for equal pixels
    images: Tensor  # uint8 [n, C, H, W] on the CPU
    unreadable: int  # files of this chunk that could not be decoded

    def only(self, places: Sequence[int]) -> "Chunk":
        """Return the images at these indices."""
        files, digests = [self.files[place] for place in places], [self.digests[place] for place in places]
        return Chunk(files, digests, self.images[places], unreadable=0)

    def followed_by(self, other: "Chunk") -> "Chunk":
        """Return the images of both chunks."""
        images = torch.cat([self.images, other.images])
        return Chunk(self.files + other.files, self.digests + other.digests, images, self.unreadable + other.unreadable)


def check_pool(pool: Path) -> None:
    """Raise UsageError when `pool` is not a folder or has no image file in it or below it."""
    if not pool.is_dir():
        raise UsageError(f"--pool {pool}: {'not a folder' if pool.exists() else 'no such folder'}")
    passed_over: Counter[str] = Counter()
    if next(image_files(pool, passed_over), None) is None:
        raise UsageError(f"--pool {pool}: no image files in it or below it; {described(passed_over)}")


def image_files(pool: Path, passed_over: Counter[str] | None = None) -> Iterator[str]:
    """Yield the paths of the image files below `pool`, relative to it.

    Folders are read in turns, so that a pass which ends early has read a sample of all of them, not the first classes
    of a sorted tree. Within a folder the order is that of the file system. Links are followed, but no folder is
    entered twice, and none that contains the pool. The other files are counted in `passed_over` by reason.
    """
    counted: Counter[str] = Counter() if passed_over is None else passed_over
    above, waiting, known = os.path.join(pool, ""), deque([str(pool)]), enclosing_folders(pool)
    for entry in _in_turns(waiting):
        if _holds(entry.is_dir):
            if not is_image_folder(entry.name):
                count_hidden_folders(os.path.dirname(entry.path), [entry.name], counted)
            elif is_new_folder(entry.path, known):
                waiting.append(entry.path)
        elif reason := why_no_image(entry.path) or (None if _holds(entry.is_file) else "a link to nothing"):
            counted[reason] += 1
        else:
            yield entry.path.removeprefix(above)


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except OSError:
        return False  # a link to itself, or a folder without permission


def _in_turns(waiting: deque[str]) -> Iterator[os.DirEntry]:
    """Yield the entries of the waiting folders, `FILES_PER_TURN` of each in turn. `waiting` may grow meanwhile."""
    with ExitStack() as listings:
        listed = deque()
        while waiting or listed:
            while waiting and len(listed) < OPEN_FOLDERS:
                listed.append(listings.enter_context(_list(waiting.popleft())))
            folder = listed.popleft()
            entries = list(islice(folder, FILES_PER_TURN))
            if entries:
                listed.append(folder)
            yield from entries


def own_files(pool: Path, world: World, passed_over: Counter[str] | None = None) -> Iterator[str]:
    """Yield the image files of this process's share of the pool, which their names determine.

    Files that are no images are counted in `passed_over` as in `image_files`, by every process all of them.
    """
    for name in image_files(pool, passed_over):
        if zlib.crc32(name.encode(errors="surrogateescape")) % world.size == world.rank:
            yield name


def read_pool(
    pool: Path,
    spec: InputSpec,
    chunk: int,
    reader: ImageReader,
    world: World = ALONE,
    passed_over: Counter[str] | None = None,
) -> Generator[Chunk]:
    """Yield this process's share of the images as uint8 for the input `spec`, `chunk` files at a time, decoded once.

    Files that are no images are counted in `passed_over` as in `image_files`.
    Closing the generator ends the pass. Threads suffice, because Pillow releases the interpreter's lock to decode.
    Raises ValueRangeError for a file whose value range cannot be told.
    """
    workers = ThreadPoolExecutor(DECODING_THREADS)
    files = own_files(pool, world, passed_over)
    share = -(-chunk // DECODING_THREADS)

    def start() -> list[Future]:
        names = list(islice(files, chunk))
        return [
            workers.submit(_decode, pool, names[first : first + share], spec, reader)
            for first in range(0, chunk, share)
        ]

    try:
        ahead = deque(start() for _ in range(CHUNKS_AHEAD))
        while ahead:
            decoded = [future.result() for future in ahead.popleft()]
            ahead.append(start())
            found = _joined(decoded)
            if not found.files and not found.unreadable:
                return
            yield found
    finally:
        workers.shutdown(wait=False, cancel_futures=True)


class _Decoded(NamedTuple):
    """The images that one thread decoded."""

    files: list[str]
    digests: list[bytes]
    images: np.ndarray  # uint8 [n, H, W, C]
    unreadable: int


def _decode(pool: Path, names: list[str], spec: InputSpec, reader: ImageReader) -> _Decoded:
    channels, height, width = spec.size
    at_least = math.ceil(2 * max(height, width) / spec.preprocessing.crop_pct)
    readable, digests, images = [], [], [np.empty((0, height, width, channels), np.uint8)]
    for name in names:
        try:
            images.append(fitted(reader.open(pool / name, at_least), spec)[None])
        except ValueRangeError:  # concerns the other files of its kind too
            raise
        except UsageError:
            continue
        readable.append(name)
        digests.append(blake2b(images[-1].data, digest_size=DIGEST_BYTES).digest())
    return _Decoded(readable, digests, np.concatenate(images), len(names) - len(readable))


def _joined(decoded: list[_Decoded]) -> Chunk:
    images = torch.from_numpy(np.concatenate([each.images for each in decoded])).permute(0, 3, 1, 2).contiguous()
    files = [name for each in decoded for name in each.files]
    digests = [digest for each in decoded for digest in each.digests]
    return Chunk(files, digests, images, sum(each.unreadable for each in decoded))


def _list(folder: str) -> AbstractContextManager[Iterator[os.DirEntry]]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise UsageError(f"--pool: cannot list the folder {folder}: {error.strerror}") from error
