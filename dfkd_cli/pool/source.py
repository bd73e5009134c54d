"""A user's folder of unlabelled images as a source: one pass over it selects the training images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dfkd_cli.data.reading import ReadOptions
from dfkd_cli.errors import UsageError
from dfkd_cli.machine.world.world import World
from dfkd_cli.pool.selected import Selected
from dfkd_cli.pool.selection import Selection, SelectionConfig
from dfkd_cli.pool.shared import SharedSelection, reshared
from dfkd_cli.training.method import Batch, Counts, ImageSource, WarmupPlan
from dfkd_cli.training.schedules import end_of_share
from dfkd_cli.training.setting import Setting, Terms


class PoolFolder(NamedTuple):
    """The user's folder of unlabelled images."""

    path: Path
    read_options: ReadOptions | None = None  # how its image files are read


class PoolImages(ImageSource):
    """The images of a pool with the highest scores of the teacher. The warm-up is the pass over the pool."""

    def __init__(self, setting: Setting, config: SelectionConfig):
        super().__init__()
        self.setting, self.config = setting, config
        self.selection = Selection(setting, config, *_pool_of(setting))
        if self.selection.keep < self.selection.wanted:
            self.notes.append(f"At most {self.selection.keep:,} images fit into options.selection.cache_mb.")
        self.selected: Selected | None = None
        self.shared = SharedSelection(setting.runtime.world)
        # Progress after this process's first chunk, whose time includes compilation.
        self.first_done: float | None = None

    def ready(self, progress: float) -> bool:
        """Return whether the images are selected."""
        return self.selected is not None and not self.shared.waiting

    def warmup(self) -> WarmupPlan:
        """Return the rounds of the pass: one per batch, and one for the selection."""
        return WarmupPlan(self.selection.rounds(), self.config.reading_share)

    def round(self, progress: float) -> Terms:
        """Read and score the next chunk of the pool; do nothing once the images are selected."""
        if self.ready(progress):
            return {}
        if self.first_done is None and self.selection.seen:
            self.first_done = progress
        in_time = self.first_done is None or progress < end_of_share(self.first_done, self.config.reading_share)
        self.selected = self.selection.advance(in_time)
        self.shared.follow(self.selected)
        if self.selected is None or self.shared.waiting:
            return {}
        self.notes.extend(self.shared.notes(self.selected))
        counts = torch.tensor(self.selected.class_counts(), dtype=torch.float32, device=self.setting.runtime.device)
        return {"selection/class_counts": counts}

    def sample(self) -> Batch:
        """Return augmented images of the selection, uniformly with replacement."""
        return Batch(self.setting.augment(self._selected().draw(self.setting.batch_size, self.setting.rng)))

    def fresh(self, count: int) -> Tensor:
        """Return the best images that were not selected, at most `count`, none if all were."""
        return self._selected().unseen(count)

    def shown(self, count: int) -> Tensor:
        """Return images spread evenly over the selection."""
        return self._selected().spread(count)

    def counts(self) -> Counts:
        """Return how many images of the pool were read, and how many are selected."""
        kept = self.selection.candidates if self.selected is None else self.selected.chosen
        size = self.setting.runtime.world.size
        return Counts(size * (self.selection.seen if self.selected is None else self.selected.seen), size * len(kept))

    def files(self) -> dict[str, str]:
        """Return the list of selected files with their scores."""
        return {"selected.csv": self._selected().to_csv() + self.shared.lines_of_others}

    def _selected(self) -> Selected:
        if self.selected is None:
            raise ValueError("the images are not selected yet")
        return self.selected

    def state_dict(self) -> dict[str, Any]:
        """Return the selected images; before the selection nothing, and a resumed run reads the pool again."""
        return {"selected": self.selected and self.selected.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.selected = state["selected"] and Selected.from_state(state["selected"], self.setting.runtime.device)
        self.shared.follow(self.selected)
        if self.selected is not None:
            self.notes.extend(self.shared.notes(self.selected))

    def reshared(self, states: Sequence[dict[str, Any]], world: World) -> dict[str, Any]:
        """Return one n-th of the images of all processes, for the n processes of now."""
        selected = [state["selected"] for state in states]
        return {"selected": None if None in selected else reshared(selected, world)}


def _pool_of(setting: Setting) -> PoolFolder:
    if not isinstance(setting.pool, PoolFolder):
        raise UsageError("this recipe needs a folder of unlabelled images: give --pool DIR")
    return setting.pool
