"""Compose the training loop of a loaded job."""

import torch

from dfkd_cli.compression.job import LoadedJob
from dfkd_cli.methods import METHODS
from dfkd_cli.narrowing.narrowing import Narrowing
from dfkd_cli.pool.source import PoolFolder
from dfkd_cli.training.clock import Clock
from dfkd_cli.training.distillation.stage_error import StageError
from dfkd_cli.training.engine import Distillation
from dfkd_cli.training.setting import Setting


def make_distillation(loaded: LoadedJob, clock: Clock, seed: int) -> Distillation:
    """Return the loop with the recipe's method, before its first step."""
    world = loaded.runtime.world
    rng = torch.Generator(loaded.runtime.device)
    rng.manual_seed(world.seed(seed))
    narrowing = None
    if loaded.plan is not None:
        narrowing = Narrowing(loaded.teacher, loaded.student, loaded.plan, loaded.recipe.narrowing, world)
    setting = Setting(
        loaded.teacher,
        loaded.student,
        batch_size=world.share(loaded.recipe.train.batch_size, "train.batch_size"),
        augmentation=loaded.recipe.augmentation,
        runtime=loaded.runtime,
        rng=rng,
        pool=None if loaded.pool is None else PoolFolder(loaded.pool, loaded.read_options),
        taps=narrowing.taps if narrowing is not None and narrowing.taps.names else None,
        compare_stages=narrowing is None and loaded.recipe.train.stages > 0.0,
        sync_batchnorm=loaded.recipe.train.sync_batchnorm,
    )
    method = METHODS[loaded.recipe.method].build(setting, loaded.recipe.options)
    train = loaded.recipe.train
    hints = narrowing.terms if narrowing is not None else StageError(setting, train.stages, train.stages_until)
    distillation = Distillation(method, setting, train, clock, narrowing, hints)
    if not world.is_first:  # equal weights are made by now; dropout differs from here on
        torch.manual_seed(world.seed(seed))
    return distillation
