"""The images chosen from a pool: what a student learns from, and what the run says of them."""

import csv
import io
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

_SCARCE = 0.1  # of an even share of the chosen images


@dataclass(frozen=True)
class Selected:
    """Images of a pool, decoded, on the device that trains. Nothing here waits for the host."""

    images: Tensor  # uint8 [slots, C, H, W]
    chosen: Tensor  # [N], slots of the images to learn from, in the order of their files
    next_best: Tensor  # [M], slots of images that were not chosen, best first
    files: list[str]  # [N], relative to the pool
    classes: list[int]  # [N], the teacher's prediction
    scores: list[float]  # [N], what they were chosen by: higher is better
    seen: int  # images of the pool that were decoded
    unreadable: int  # files of the pool that could not be
    copies: int  # images seen whose pixels were those of one seen before, as far as that is remembered
    complete: bool  # whether the pool was read to its end
    num_classes: int  # the teacher's

    def read(self, slots: Tensor) -> Tensor:
        """The images in these slots as floats in [0, 1]."""
        return self.images[slots].float() / 255.0

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """`count` of the chosen images, uniformly with replacement."""
        return self.read(self.chosen[torch.randint(len(self.chosen), (count,), generator=rng, device=rng.device)])

    def spread(self, count: int) -> Tensor:
        """At most `count` of the chosen images, evenly over the order of their files."""
        places = torch.linspace(0, len(self.chosen) - 1, min(count, len(self.chosen)), device=self.chosen.device)
        return self.read(self.chosen[places.long()])

    def unseen(self, count: int) -> Tensor:
        """`count` of the next best images; of the chosen ones when there are none or too few."""
        source = self.next_best if len(self.next_best) >= count else self.chosen
        return self.read(source[torch.arange(count, device=source.device) % len(source)])

    def to_csv(self) -> str:
        """One line per chosen image: file, pseudo_class, score."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("file", "pseudo_class", "score"))
        writer.writerows(zip(self.files, self.classes, (f"{score:.6g}" for score in self.scores), strict=True))
        return table.getvalue()

    def class_counts(self) -> list[int]:
        """How many chosen images the teacher sees in each class: [K]."""
        counts = Counter(self.classes)
        return [counts[number] for number in range(self.num_classes)]

    def notes(self) -> list[str]:
        """What became of the pool, and whether the teacher sees too little of some classes in it, a sentence each."""
        return [self._choice(), *self._scarcity()]

    def _scarcity(self) -> list[str]:
        even = len(self.classes) / self.num_classes
        scarce = sum(count < _SCARCE * even for count in self.class_counts())
        if scarce == 0:
            return []
        return [
            f"The teacher sees {scarce:,} of its {self.num_classes:,} classes in hardly any image of the pool: the "
            "student can learn little of them. A pool more like the teacher's own images would help."
        ]

    def _choice(self) -> str:
        read = "read to its end" if self.complete else "read only in part, as the time for it was up"
        text = f"The pool was {read}: {self.seen:,} images seen, {len(self.chosen):,} chosen"
        text += f", {self.unreadable:,} unreadable skipped" if self.unreadable else ""
        text += f", {self.copies:,} copies of others skipped" if self.copies else ""
        if len(self.next_best) == 0:
            text += "; too few are left over to measure the agreement on images not learned from"
        return f"{text}."

    def state_dict(self) -> dict:
        """Everything, without the slots that nobody uses."""
        slots = torch.cat([self.chosen, self.next_best])
        order = torch.arange(len(slots), device=slots.device)
        chosen, next_best = order.split([len(self.chosen), len(self.next_best)])
        return vars(self) | {"images": self.images[slots], "chosen": chosen, "next_best": next_best}

    @classmethod
    def from_state(cls, state: dict, device: torch.device) -> "Selected":
        """What `state_dict` was called on, its tensors on `device`."""
        tensors = {name: state[name].to(device) for name in ("images", "chosen", "next_best")}
        return cls(**(state | tensors))
