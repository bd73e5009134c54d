"""The images selected from a pool, and the notes about them."""

import csv
import io
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_cli.data.image_files import described

_RARE = 0.1  # share of the mean class size below which a class is rare


@dataclass(frozen=True)
class Selected:
    """Decoded images of a pool on the training device."""

    images: Tensor  # uint8 [slots, C, H, W]
    chosen: Tensor  # [N], slots of the training images, in the order of their files
    next_best: Tensor  # [M], slots of images that were not chosen, best first
    files: list[str]  # [N], paths relative to the pool
    classes: list[int]  # [N], the teacher's prediction
    scores: list[float]  # [N], higher is better
    seen: int  # images of the pool that were decoded
    unreadable: int  # files of the pool that could not be decoded
    remarks: tuple[str, ...]  # what the user should know of the image files, one sentence each
    passed_over: dict[str, int]  # files of the pool that are no images, by reason
    copies: int  # images with the pixels of an earlier one, as far as its digest is stored
    complete: bool  # whether the pool was read to its end
    num_classes: int  # of the teacher
    dense: bool  # the teacher has an answer per pixel; `classes` are then the most frequent ones

    def read(self, slots: Tensor) -> Tensor:
        """Return the images in these slots as floats in [0, 1]."""
        return self.images[slots].float() / 255.0

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Return `count` of the chosen images, uniformly with replacement."""
        return self.read(self.chosen[torch.randint(len(self.chosen), (count,), generator=rng, device=rng.device)])

    def spread(self, count: int) -> Tensor:
        """Return at most `count` of the chosen images, evenly spaced in the order of their files."""
        places = torch.linspace(0, len(self.chosen) - 1, min(count, len(self.chosen)), device=self.chosen.device)
        return self.read(self.chosen[places.long()])

    def unseen(self, count: int) -> Tensor:
        """Return at most `count` of the next best images."""
        return self.read(self.next_best[:count])

    def to_csv(self) -> str:
        """Return CSV with one line per chosen image: file, pseudo_class, score."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("file", "pseudo_class", "score"))
        writer.writerows(zip(self.files, self.classes, (f"{score:.6g}" for score in self.scores), strict=True))
        return table.getvalue()

    def class_counts(self) -> list[int]:
        """Return the number of chosen images that the teacher assigns to each class: [K]."""
        counts = Counter(self.classes)
        return [counts[number] for number in range(self.num_classes)]

    def notes(self) -> list[str]:
        """Return sentences about the selection and its files and, if some classes are rare in it, a warning."""
        return [self._summary(), *self.remarks, *self._rare_classes()]

    def _rare_classes(self) -> list[str]:
        if self.dense:  # a class can be in many images and the most frequent one in none
            return []
        even = len(self.classes) / self.num_classes
        rare = sum(count < _RARE * even for count in self.class_counts())
        if rare == 0:
            return []
        return [
            f"The teacher predicts {rare:,} of its {self.num_classes:,} classes for almost no image of the pool: the "
            "student will be poor on them. Use a pool that resembles the teacher's training images."
        ]

    def _summary(self) -> str:
        read = "completely" if self.complete else "only partly, because its share of the budget was used up"
        text = f"The pool was read {read}: {self.seen:,} images read, {len(self.chosen):,} selected"
        text += f", {self.unreadable:,} unreadable skipped" if self.unreadable else ""
        text += f", {self.copies:,} copies skipped" if self.copies else ""
        text += f"; {described(self.passed_over)}" if self.passed_over else ""
        if len(self.next_best) == 0:
            text += "; none remains to measure the agreement on images that are not trained on"
        return f"{text}."

    def state_dict(self) -> dict:
        """Return everything except unused slots."""
        slots = torch.cat([self.chosen, self.next_best])
        order = torch.arange(len(slots), device=slots.device)
        chosen, next_best = order.split([len(self.chosen), len(self.next_best)])
        return vars(self) | {"images": self.images[slots], "chosen": chosen, "next_best": next_best}

    @classmethod
    def from_state(cls, state: dict, device: torch.device) -> "Selected":
        """Return what `state_dict` was called on, with its tensors on `device`."""
        tensors = {name: state[name].to(device) for name in ("images", "chosen", "next_best")}
        return cls(**(state | tensors))
