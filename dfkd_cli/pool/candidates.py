"""The best images of a stream, in a store of fixed size: what they were ranked by, and the ranking itself."""

import numpy as np
import torch
from torch import Tensor

REJECTED = 2**20  # that are remembered: 8 MB


def rank(scores: Tensor, classes: Tensor, cap: int) -> Tensor:
    """All places, best first: by score those within the `cap` best of their class, then by score the others.

    [N], [N] -> [N]. The first n of this order are the same whether the images are ranked at once or the best n of
    what came so far are ranked with what comes next, for any n: a stream needs no larger store than its result.
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
    """Images that will never be among the best, in a fixed memory: of two that share a place the later is known.

    By the first 64 bits of their digests: of a million images, one in ten million pools takes one for another.
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
    """The best `keep` images seen, and in `capacity` slots some that are not yet known to be worse; no two are equal.

    Images are uint8 [capacity, C, H, W] on the device; what they are ranked by is on the CPU, one entry per slot.
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
        """Places in this batch of the images that nothing is known of: once each, and none whose copy came before.

        Of an image that is held under another name, the first name in order is kept: it does not depend on the order
        in which the files were found.
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
        """Stores at most `capacity - keep` images, all of them `unknown`; a score that is no number ranks last."""
        if len(images) > len(self.free):
            self._forget_the_worst()
        slots, self.free = self.free.split([len(images), len(self.free) - len(images)])
        self.images[slots.to(self.images.device)] = images
        self.scores[slots] = scores.nan_to_num(nan=-torch.inf)
        self.classes[slots] = classes
        for slot, file, digest in zip(slots.tolist(), files, digests, strict=True):
            self.files[slot], self.digests[slot], self.slots[digest] = file, digest, slot
        self.taken = torch.cat([self.taken, slots])

    def _forget_the_worst(self) -> None:
        """Frees every slot but those of the best `keep` images."""
        best = self.best()
        occupied = torch.zeros(len(self.images), dtype=torch.bool)
        occupied[best] = True
        for slot in self.taken[~occupied[self.taken]].tolist():
            self.rejected.add(self.digests[slot])
        self.taken, self.free = best.sort().values, (~occupied).nonzero().squeeze(1)
        self.slots = {self.digests[slot]: slot for slot in self.taken.tolist()}

    def best(self) -> Tensor:
        """Slots of the best `keep` images, best first."""
        order = rank(self.scores[self.taken], self.classes[self.taken], self.cap)
        return self.taken[order[: self.keep]]
