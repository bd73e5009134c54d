"""Chooses the images to learn from out of a pool in one pass over it: read, scored by the teacher, the best kept."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dfkd_cli.config.values import require
from dfkd_cli.data.image_files import MODES
from dfkd_cli.distillation.projection import embedding_size
from dfkd_cli.errors import RecipeMismatchError, UsageError
from dfkd_cli.pool import scoring
from dfkd_cli.pool.candidates import Candidates, rank
from dfkd_cli.pool.folder import Chunk, picture_files, read_pool
from dfkd_cli.pool.selected import Selected
from dfkd_cli.training.setting import Setting

SPARE = 0.25  # slots beyond those kept, as a share: the more there are, the rarer all are ranked anew
MOST_OF_A_BUDGET = 0.9  # for reading: something has to be left for the student
FRESH_BATCHES = 4  # of next best images, never learned from, to measure agreement on


@dataclass(frozen=True)
class SelectionConfig:
    """Which images of the pool are chosen."""

    score: Literal["confidence", "entropy", "bn", "prototype", "random"]
    keep: int  # images to learn from, at most
    class_cap: float  # a pseudo-class gets at most this times its even share, while others can fill up
    cache_mb: int  # memory for the decoded images, on the device that trains
    reading_share: float  # of a budget, at most, for the pass over the pool

    def __post_init__(self) -> None:
        require(self, 1, "keep", "class_cap", "cache_mb")
        require(self, 0, "reading_share", at_most=MOST_OF_A_BUDGET)


class Selection:
    """One pass over the pool: `advance` until it returns what was chosen, and from then on always returns it.

    Raises UsageError when no memory, channels or pictures fit, RecipeMismatchError when the score needs what the
    teacher does not have.
    """

    def __init__(self, setting: Setting, config: SelectionConfig, pool: Path):
        _check(setting, config.score)
        self.setting, self.config, self.pool = setting, config, pool
        self.fresh = FRESH_BATCHES * setting.batch_size
        self.candidates = self._make_candidates()
        self.keep = min(config.keep, self.candidates.keep - self.fresh)
        self.chunks = read_pool(pool, setting.teacher.spec.size, setting.batch_size)
        self.waiting = Chunk([], [], torch.empty(0, *setting.teacher.spec.size, dtype=torch.uint8), unreadable=0)
        self.seen, self.unreadable, self.copies = 0, 0, 0
        self.selected: Selected | None = None

    def _make_candidates(self) -> Candidates:
        spec, batch, config = self.setting.teacher.spec, self.setting.batch_size, self.config
        # Prototypes are known only after the pass: they choose among twice the images.
        wanted = (config.keep + self.fresh) * (2 if config.score == "prototype" else 1)
        room = config.cache_mb * 2**20 // math.prod(spec.size)
        held = min(wanted, int((room - batch) / (1.0 + SPARE)))
        if held - self.fresh < batch:
            raise UsageError(f"options.selection.cache_mb={config.cache_mb} holds only {room:,} images; give it more")
        keep = min(config.keep, held - self.fresh)
        cap = math.ceil(min(config.class_cap * keep / spec.num_classes, keep))
        capacity = math.ceil(held * (1.0 + SPARE)) + batch
        return Candidates(capacity, held, cap, spec.size, self.setting.runtime.device)

    def rounds(self) -> int:
        """How often `advance` has to be called for the whole pool."""
        return math.ceil(sum(1 for _ in picture_files(self.pool)) / self.setting.batch_size) + 1

    def advance(self, in_time: bool) -> Selected | None:
        """Takes one more chunk; chooses at the end of the pool and, once anything was seen, of the time for it."""
        if self.selected is not None:
            return self.selected
        reading = in_time or self.seen == 0
        chunk = next(self.chunks, None) if reading else None
        if chunk is None:
            self.selected = self._choose(complete=reading)
        else:
            self._take(chunk)
        return self.selected

    def _take(self, chunk: Chunk) -> None:
        """Shows the teacher the next whole batch of images that are no copies; the others wait for more."""
        self.seen += len(chunk.files)
        self.unreadable += chunk.unreadable
        gathered = self.waiting.followed_by(chunk)
        unknown = self.candidates.unknown(gathered.files, gathered.digests)
        self.copies += len(gathered.files) - len(unknown)
        batch = self.setting.batch_size
        now = unknown[:batch] if len(unknown) >= batch else []
        self._store(gathered.only(now))
        self.waiting = gathered.only(unknown[len(now) :])

    def _store(self, chunk: Chunk) -> None:
        """Scores at most a batch of images and keeps them while they are among the best."""
        if chunk.files:
            images = chunk.images.to(self.setting.runtime.device)
            classes, scores, _ = self._look(images)
            if self.config.score == "random":
                scores = scoring.by_chance(chunk.digests, self.setting.rng.initial_seed())
            self.candidates.add(images, scores.cpu(), classes.cpu(), chunk.files, chunk.digests)

    @torch.no_grad()
    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The teacher's classes, the scores and the embeddings of at most a batch of uint8 images."""
        count, kind, runtime = len(images), self.config.score, self.setting.runtime
        # Always a whole batch, as the student's are: what is compiled is compiled once.
        padding = images.new_zeros(self.setting.batch_size - count, *images.shape[1:])
        whole = runtime.images(torch.cat([images, padding]).float() / 255.0)
        with runtime.autocast():
            if kind == "bn":
                seen = self.setting.teacher.observe(whole)
                scores = scoring.norm_closeness(seen.norm_inputs, self.setting.teacher.norm_statistics)
            else:
                seen = self.setting.teacher_features(whole)
                scores = scoring.confidence(seen.logits)
        if kind == "entropy":
            scores = scoring.negative_entropy(seen.logits)
        embedding = None if seen.embedding is None else seen.embedding[:count]
        return seen.logits[:count].argmax(dim=1), scores[:count], embedding

    def _choose(self, complete: bool) -> Selected:
        self.chunks.close()
        if self.seen == 0:
            raise UsageError(f"--pool {self.pool}: none of its {self.unreadable:,} pictures can be read")
        self._store(self.waiting)
        store = self.candidates
        best = store.best() if self.config.score != "prototype" else self._best_by_prototypes()
        # In an order that does not depend on the file system's.
        chosen = sorted(best[: self.keep].tolist(), key=store.files.__getitem__)
        left = best[self.keep : self.keep + self.fresh]
        next_best = left if len(left) == self.fresh else left[:0]  # too few would measure nothing
        return Selected(
            images=store.images,
            chosen=torch.tensor(chosen, device=store.images.device),
            next_best=next_best.to(store.images.device),
            files=[store.files[slot] for slot in chosen],
            classes=store.classes[chosen].tolist(),
            scores=store.scores[chosen].tolist(),
            seen=self.seen,
            unreadable=self.unreadable,
            copies=self.copies,
            complete=complete,
            num_classes=self.setting.teacher.spec.num_classes,
        )

    def _best_by_prototypes(self) -> Tensor:
        """Ranks the most confident images anew, now that the embeddings of all of them can be compared."""
        store = self.candidates
        slots = store.best()
        parts = [part.to(store.images.device) for part in slots.split(self.setting.batch_size)]
        seen = [self._look(store.images[part])[2] for part in parts]
        embedding = torch.cat([part.float().cpu() for part in seen if part is not None])
        store.scores[slots] = scoring.prototype_score(embedding, store.scores[slots], store.classes[slots])
        return slots[rank(store.scores[slots], store.classes[slots], store.cap)]


def _check(setting: Setting, score: str) -> None:
    spec = setting.teacher.spec
    if spec.size[0] not in MODES:
        raise UsageError(f"pictures have 1 to 4 channels, the teacher takes {spec.size[0]}: it cannot look at a pool")
    lacking = {
        "bn": not setting.teacher.norm_statistics and "BatchNorm layers",
        "prototype": embedding_size(setting.teacher) is None and "a last linear layer that can be seen",
    }
    if missing := lacking.get(score):
        raise RecipeMismatchError(
            f"options.selection.score={score} needs {missing}, which {setting.teacher.origin.source} does not have; "
            "use confidence or entropy"
        )
