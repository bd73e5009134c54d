"""Selects the training images in one pass over a pool, by scores of the teacher."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dfkd_cli.config.values import require
from dfkd_cli.data.fitting import MODES
from dfkd_cli.data.reading import ImageReader, ReadOptions
from dfkd_cli.errors import RecipeMismatchError, UsageError
from dfkd_cli.networks.tasks import SEGMENTATION
from dfkd_cli.pool import scoring
from dfkd_cli.pool.candidates import Candidates, rank
from dfkd_cli.pool.folder import Chunk, own_files, read_pool
from dfkd_cli.pool.selected import Selected
from dfkd_cli.training.distillation.projection import embedding_size
from dfkd_cli.training.setting import Setting

SPARE = 0.25  # slots beyond those kept, as a share; with more of them the images are ranked less often
LARGEST_READING_SHARE = 0.9  # of a budget; the rest is for the student's training
FRESH_BATCHES = 4  # of next best images, which the agreement is measured on


@dataclass(frozen=True)
class SelectionConfig:
    """The selection of images from the pool."""

    score: Literal["confidence", "entropy", "bn", "prototype", "random"]
    keep: int  # largest number of training images
    class_cap: float  # largest size of a pseudo-class, in units of the mean size, while others can fill up
    cache_mb: int  # memory for the decoded images on the training device, in MiB
    reading_share: float  # largest share of a budget for the pass over the pool

    def __post_init__(self) -> None:
        require(self, 1, "keep", "class_cap", "cache_mb")
        require(self, 0, "reading_share", at_most=LARGEST_READING_SHARE)


class Selection:
    """One pass over the pool. Call `advance` until it returns the selection.

    Raises UsageError when the memory is too small, the teacher's images are not those of files, or no file can be read.
    Raises RecipeMismatchError when the teacher lacks what the score needs.
    """

    def __init__(self, setting: Setting, config: SelectionConfig, pool: Path, options: ReadOptions | None = None):
        _check(setting, config.score)
        self.setting, self.config, self.pool = setting, config, pool
        self.wanted = setting.runtime.world.share_of_memory(config.keep)  # training images of this process
        self.fresh = FRESH_BATCHES * setting.batch_size
        self.candidates = self._make_candidates()
        self.keep = min(self.wanted, self.candidates.keep - self.fresh)
        self.reader, self.passed_over, world = ImageReader(options), Counter(), setting.runtime.world
        self.chunks = read_pool(
            pool, setting.teacher.spec, setting.batch_size, self.reader, world, passed_over=self.passed_over
        )
        self.waiting = Chunk([], [], torch.empty(0, *setting.teacher.spec.size, dtype=torch.uint8), unreadable=0)
        self.seen, self.unreadable, self.copies = 0, 0, 0
        self.selected: Selected | None = None

    def _make_candidates(self) -> Candidates:
        spec, batch, config = self.setting.teacher.spec, self.setting.batch_size, self.config
        # Prototypes are known only after the pass; they select from twice the images.
        wanted = (self.wanted + self.fresh) * (2 if config.score == "prototype" else 1)
        room = config.cache_mb * 2**20 // math.prod(spec.size)
        held = min(wanted, int((room - batch) / (1.0 + SPARE)))
        if held - self.fresh < batch:
            raise UsageError(f"options.selection.cache_mb={config.cache_mb} holds only {room:,} images; increase it")
        keep = min(self.wanted, held - self.fresh)
        cap = math.ceil(min(config.class_cap * keep / spec.num_classes, keep))
        capacity = math.ceil(held * (1.0 + SPARE)) + batch
        return Candidates(capacity, held, cap, spec.size, self.setting.runtime.device)

    def rounds(self) -> int:
        """Return the number of calls of `advance` for the whole pool."""
        files = sum(1 for _ in own_files(self.pool, self.setting.runtime.world))
        return math.ceil(files / self.setting.batch_size) + 1

    def advance(self, in_time: bool) -> Selected | None:
        """Read and score one more chunk; select the images when the pool is read or `in_time` is false.

        At least one chunk is read. Return None before the selection, and the selection in this and all later calls.
        """
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
        """Score the next whole batch of images that are no copies; the others wait for the next chunk."""
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
        """Score at most a batch of images and add them to the candidates."""
        if chunk.files:
            images = self.setting.runtime.upload(chunk.images)
            classes, scores, _ = self._score(images)
            if self.config.score == "random":
                scores = scoring.by_chance(chunk.digests, self.setting.rng.initial_seed())
            self.candidates.add(images, scores.cpu(), classes.cpu(), chunk.files, chunk.digests)

    @torch.no_grad()
    def _score(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the teacher's classes, the scores and the embeddings of at most a batch of uint8 images."""
        count, kind, runtime = len(images), self.config.score, self.setting.runtime
        # Always a whole batch, of the student's batch size, so that the teacher is compiled only once.
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
        teacher = self.setting.teacher
        classes = teacher.task.image_class(seen.logits[:count].argmax(dim=1), teacher.spec.num_classes)
        return classes, scores[:count], embedding

    def _choose(self, complete: bool) -> Selected:
        self.chunks.close()
        if self.seen == 0:
            raise UsageError(f"--pool {self.pool}: none of its {self.unreadable:,} image files can be read")
        self._store(self.waiting)
        store = self.candidates
        best = store.best() if self.config.score != "prototype" else self._best_by_prototypes()
        # This order does not depend on that of the file system.
        chosen = sorted(best[: self.keep].tolist(), key=store.files.__getitem__)
        next_best = best[self.keep : self.keep + self.fresh]
        return Selected(
            images=store.images,
            chosen=torch.tensor(chosen, device=store.images.device),
            next_best=next_best.to(store.images.device),
            files=[store.files[slot] for slot in chosen],
            classes=store.classes[chosen].tolist(),
            scores=store.scores[chosen].tolist(),
            seen=self.seen,
            unreadable=self.unreadable,
            remarks=self.reader.notes(),
            passed_over=dict(self.passed_over),
            copies=self.copies,
            complete=complete,
            num_classes=self.setting.teacher.spec.num_classes,
            dense=self.setting.teacher.task is SEGMENTATION,
        )

    def _best_by_prototypes(self) -> Tensor:
        """Rank the most confident images by their prototype scores, which need all embeddings; return their slots."""
        store = self.candidates
        slots = store.best()
        batches = [batch.to(store.images.device) for batch in slots.split(self.setting.batch_size)]
        embeddings = [self._score(store.images[batch])[2] for batch in batches]
        embedding = torch.cat([batch.float().cpu() for batch in embeddings if batch is not None])
        store.scores[slots] = scoring.prototype_score(embedding, store.scores[slots], store.classes[slots])
        return slots[rank(store.scores[slots], store.classes[slots], store.cap)]


def _check(setting: Setting, score: str) -> None:
    spec = setting.teacher.spec
    if spec.size[0] not in MODES:
        raise UsageError(f"image files have 1 to 4 channels, the teacher needs {spec.size[0]}: it cannot score a pool")
    lacking = {
        "bn": not setting.teacher.norm_statistics and "BatchNorm layers",
        "prototype": embedding_size(setting.teacher) is None and "a visible last linear layer",
    }
    if missing := lacking.get(score):
        raise RecipeMismatchError(
            f"options.selection.score={score} needs {missing}, which {setting.teacher.origin.source} does not have; "
            "use confidence or entropy"
        )
