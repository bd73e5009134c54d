"""The best images of a stream, in a store of fixed size, and their ranking."""

import numpy as np
import torch
from torch import Tensor

REJECTED = 2**20  # digests of rejected images that are stored: 8 MB


def rank(scores: Tensor, classes: Tensor, cap: int) -> Tensor:
    """Return all indices, best first: the `cap` best of each class by score, then the others by score.

    [N], [N] -> [N]. The first n indices are the same when the images are ranked at once and when the best n of earlier
    images are ranked together with later ones, for any n. A stream therefore needs no larger store than its result.
    """
    by_score = scores.argsort(descending=True, stable=True)
    ordered = classes[by_score]
    grouped = ordered.argsort(stable=True)
    counts = torch.bincount(ordered)
    first = counts.cumsum(0) - counts
    place = torch.empty_like(grouped)
    place[grouped] = torch.arange(len(grouped)) - first[ordered[grouped]]
    return by_score[(place >= cap).int().argsort(stable=True)]


class _Rejected:
    """A set of fixed size of images that cannot be among the best. An image replaces an earlier one in its slot.

    It holds the first 64 bits of the images' digests: two images of a million are equal in one of ten million pools.
    """

    def __init__(self):
        self.known = np.zeros(REJECTED, np.uint64)

    def add(self, digest: bytes) -> None:
        number = int.from_bytes(digest[:8])
        self.known[number % REJECTED] = number

    def __contains__(self, digest: bytes) -> bool:
        number = int.from_bytes(digest[:8])
        return int(self.known[number % REJECTED]) == number


class Candidates:
    """`capacity` slots with the best `keep` images of a stream and images that are not ranked yet. No two are equal.

    Images are uint8 [capacity, C, H, W] on the device. Scores and classes, one per slot, are on the CPU.
    """

    def __init__(self, capacity: int, keep: int, cap: int, size: tuple[int, int, int], device: torch.device):
        self.keep, self.cap = keep, cap
        self.images = torch.empty(capacity, *size, dtype=torch.uint8, device=device)
        self.scores = torch.empty(capacity)
        self.classes = torch.empty(capacity, dtype=torch.int64)
        self.files, self.digests = [""] * capacity, [b""] * capacity
        self.slots: dict[bytes, int] = {}  # of the images held, by digest
        self.rejected = _Rejected()
        self.taken, self.free = torch.arange(0), torch.arange(capacity)

    def __len__(self) -> int:
        return min(len(self.taken), self.keep)

    def unknown(self, files: list[str], digests: list[bytes]) -> list[int]:
        """Return the indices in this batch of the images without an earlier copy, one per distinct image.

        Of a stored image's names, the first in alphabetical order is kept, so that the result does not depend on the
        order in which the files were found.
        """
        first: dict[bytes, int] = {}
        for place, (file, digest) in enumerate(zip(files, digests, strict=True)):
            slot = self.slots.get(digest)
            if slot is not None:
                self.files[slot] = min(self.files[slot], file)
            elif digest in first:
                first[digest] = min(first[digest], place, key=files.__getitem__)
            elif digest not in self.rejected:
                first[digest] = place
        return sorted(first.values())

    def add(self, images: Tensor, scores: Tensor, classes: Tensor, files: list[str], digests: list[bytes]) -> None:
        """Store at most `capacity - keep` images that `unknown` returned. A score of NaN ranks last."""
        if len(images) > len(self.free):
            self._free_slots()
        slots, self.free = self.free.split([len(images), len(self.free) - len(images)])
        self.images[slots.to(self.images.device)] = images
        self.scores[slots] = scores.nan_to_num(nan=-torch.inf)
        self.classes[slots] = classes
        for slot, file, digest in zip(slots.tolist(), files, digests, strict=True):
            self.files[slot], self.digests[slot], self.slots[digest] = file, digest, slot
        self.taken = torch.cat([self.taken, slots])

    def _free_slots(self) -> None:
        """Free every slot except those of the best `keep` images."""
        best = self.best()
        occupied = torch.zeros(len(self.images), dtype=torch.bool)
        occupied[best] = True
        for slot in self.taken[~occupied[self.taken]].tolist():
            self.rejected.add(self.digests[slot])
        self.taken, self.free = best.sort().values, (~occupied).nonzero().squeeze(1)
        self.slots = {self.digests[slot]: slot for slot in self.taken.tolist()}

    def best(self) -> Tensor:
        """Return the slots of the best `keep` images, best first."""
        order = rank(self.scores[self.taken], self.classes[self.taken], self.cap)
        return self.taken[order[: self.keep]]
