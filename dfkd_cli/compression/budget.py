"""The arithmetic of time, for runs and plans alike: what a budget sets aside, and what fits into the rest."""

import math
import time
from dataclasses import dataclass, replace

from dfkd_cli.compression.job import LoadedJob
from dfkd_cli.compression.pace import Pace
from dfkd_cli.data.segmented import SegmentedImages
from dfkd_cli.evaluation.accuracy import measure_accuracy
from dfkd_cli.evaluation.segmentation import measure_segmentation
from dfkd_cli.training.config import TrainConfig

SAVING_RESERVE_S = 4.0  # set aside from a budget for writing the result
SAVING_S = 1.0  # what writing the result usually takes
TRIED_IMAGES = 512  # at most, from which a plan estimates the teacher's pass over the evaluation data
PASSES_BEFORE = 1  # over the evaluation data, before the training: by the teacher
PASSES_AFTER = 2  # after the training: by the teacher and by the student, which takes no longer


@dataclass(frozen=True)
class Seconds:
    """Wall clock of a run, in total and by phase."""

    total: float
    loading: float  # networks, and what only the first steps cost, such as compilation
    warmup: float  # rounds before the first student step
    synthesis: float  # rounds between student steps
    distillation: float  # student steps
    evaluation: float  # on --eval, before and after the training
    saving: float


def time_teacher_pass(loaded: LoadedJob, most_images: int | None = None) -> float:
    """Return the seconds of the teacher's pass over the evaluation data, 0 without such data.

    A run measures a pass over all images, which also finds unreadable image files before the training. With
    `most_images` the pass covers at most so many of them, and its time is extrapolated to all.
    """
    if loaded.data is None:
        return 0.0
    begun = time.monotonic()
    if isinstance(loaded.data, SegmentedImages):
        data = loaded.data.first(most_images or len(loaded.data))
        measure_segmentation(loaded.teacher, data, loaded.runtime.device)
    else:
        data = replace(loaded.data, labels=loaded.data.labels[:most_images])
        measure_accuracy(loaded.teacher, data, loaded.runtime.device)
    return (time.monotonic() - begun) * len(loaded.data) / len(data)


def training_seconds(budget: float, elapsed_s: float, teacher_pass_s: float) -> float:
    """Return the seconds of a budget that warm-up and training may take; 0 or less when it is used up.

    `elapsed_s` have passed since the start, the passes before the training included.
    """
    return budget - elapsed_s - SAVING_RESERVE_S - PASSES_AFTER * teacher_pass_s


def reckon(config: TrainConfig, pace: Pace, loading_s: float, teacher_pass_s: float) -> tuple[int, int, Seconds]:
    """Return the student steps, the rounds of the warm-up and the seconds of a run at this pace.

    Without a budget the steps are those of the recipe; with one, those that fit: 0 when it is used up before.
    """
    loading_s += pace.start_s
    rounds, steps, saving_s = pace.warmup.rounds, config.steps, SAVING_S
    if config.budget is not None:
        left = training_seconds(config.budget, loading_s + PASSES_BEFORE * teacher_pass_s, teacher_pass_s)
        affordable = max(left, 0.0) * pace.warmup.share
        rounds = min(rounds, math.ceil(affordable / pace.warmup_round_s)) if pace.warmup_round_s else rounds
        each = pace.step_s + pace.round_s / config.round_every
        steps = max(0, int((left - rounds * pace.warmup_round_s) / each))
        saving_s = SAVING_RESERVE_S
    between = math.ceil(steps / config.round_every) - (rounds > 0)  # the last warm-up round serves the first steps
    phases = {
        "loading": loading_s,
        "warmup": rounds * pace.warmup_round_s,
        "synthesis": max(0, between) * pace.round_s,
        "distillation": steps * pace.step_s,
        "evaluation": (PASSES_BEFORE + PASSES_AFTER) * teacher_pass_s,
        "saving": saving_s,
    }
    return steps, rounds, Seconds(total=config.budget or sum(phases.values()), **phases)
