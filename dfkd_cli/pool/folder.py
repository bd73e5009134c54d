"""A folder of unlabelled pictures, read once from beginning to end without ever being held in memory."""

import os
from collections import deque
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

from dfkd_cli.data.image_files import (
    DECODING_THREADS,
    as_array,
    enclosing_folders,
    is_image_file,
    is_new_folder,
    open_image,
)
from dfkd_cli.errors import UsageError

CHUNKS_AHEAD = 4  # decoded while the network works on an earlier one
OPEN_FOLDERS = 256  # listed in turns; each holds a file descriptor, of which processes often have 1024
FILES_PER_TURN = 16
DIGEST_BYTES = 16


class Chunk(NamedTuple):
    """Some pictures of the pool."""

    files: list[str]  # relative to the pool, one per image
    digests: list[bytes]  # of each image: equal for equal pixels
    images: Tensor  # uint8 [n, C, H, W] on the CPU
    unreadable: int  # files of this chunk that could not be decoded

    def only(self, places: Sequence[int]) -> "Chunk":
        """These pictures of the chunk."""
        files, digests = [self.files[place] for place in places], [self.digests[place] for place in places]
        return Chunk(files, digests, self.images[places], unreadable=0)

    def followed_by(self, other: "Chunk") -> "Chunk":
        """The pictures of both."""
        images = torch.cat([self.images, other.images])
        return Chunk(self.files + other.files, self.digests + other.digests, images, self.unreadable + other.unreadable)


def check_pool(pool: Path) -> None:
    """Raises UsageError when `pool` is not a folder or no picture lies in or below it."""
    if not pool.is_dir():
        raise UsageError(f"--pool {pool}: {'not a folder' if pool.exists() else 'no such folder'}")
    if next(picture_files(pool), None) is None:
        raise UsageError(f"--pool {pool}: no pictures in it or below it")


def picture_files(pool: Path) -> Iterator[str]:
    """Paths of the pictures below `pool`, relative to it, found while they are asked for.

    Folders take turns: what was read when the time is up is then a sample of all, not the first classes of a sorted
    tree. Within a folder the order is that of the file system. Links are followed, but no folder is entered
    twice, nor one around the pool.
    """
    above, waiting, known = os.path.join(pool, ""), deque([str(pool)]), enclosing_folders(pool)
    for entry in _in_turns(waiting):
        if is_image_file(entry.name) and _holds(entry.is_file):
            yield entry.path.removeprefix(above)
        elif not entry.name.startswith(".") and _holds(entry.is_dir) and is_new_folder(entry.path, known):
            waiting.append(entry.path)


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except OSError:
        return False  # a link to itself, or into a folder that is closed to us


def _in_turns(waiting: deque[str]) -> Iterator[os.DirEntry]:
    """Entries of the waiting folders, to which more may be added meanwhile: some of one, some of the next."""
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


def read_pool(pool: Path, size: tuple[int, int, int], chunk: int) -> Generator[Chunk]:
    """All pictures of the pool as uint8 images of `size` (C, H, W), `chunk` files at a time, each decoded once.

    Closing the generator ends the pass. Threads, because Pillow decodes outside the interpreter's lock: no second copy
    of the process and its pictures.
    """
    workers = ThreadPoolExecutor(DECODING_THREADS)
    files = picture_files(pool)
    share = -(-chunk // DECODING_THREADS)

    def start() -> list[Future]:
        names = list(islice(files, chunk))
        return [workers.submit(_decode, pool, names[first : first + share], size) for first in range(0, chunk, share)]

    try:
        ahead = deque(start() for _ in range(CHUNKS_AHEAD))
        while ahead:
            parts = [part.result() for part in ahead.popleft()]
            ahead.append(start())
            found = _joined(parts)
            if not found.files and not found.unreadable:
                return
            yield found
    finally:
        workers.shutdown(wait=False, cancel_futures=True)


class _Decoded(NamedTuple):
    """What one thread makes of its files."""

    files: list[str]
    digests: list[bytes]
    pictures: np.ndarray  # uint8 [n, H, W, C]
    unreadable: int


def _decode(pool: Path, names: list[str], size: tuple[int, int, int]) -> _Decoded:
    channels, height, width = size
    readable, digests, pictures = [], [], [np.empty((0, height, width, channels), np.uint8)]
    for name in names:
        try:
            picture = open_image(pool / name, at_least=(2 * width, 2 * height))
            pictures.append(as_array(picture, channels, height, width)[None])
        except UsageError:
            continue
        readable.append(name)
        digests.append(blake2b(pictures[-1].data, digest_size=DIGEST_BYTES).digest())
    return _Decoded(readable, digests, np.concatenate(pictures), len(names) - len(readable))


def _joined(parts: list[_Decoded]) -> Chunk:
    images = torch.from_numpy(np.concatenate([part.pictures for part in parts])).permute(0, 3, 1, 2).contiguous()
    files = [name for part in parts for name in part.files]
    digests = [digest for part in parts for digest in part.digests]
    return Chunk(files, digests, images, sum(part.unreadable for part in parts))


def _list(folder: str) -> AbstractContextManager[Iterator[os.DirEntry]]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise UsageError(f"--pool: cannot list the folder {folder}: {error.strerror}") from error
