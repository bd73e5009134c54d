"""Make a job from plain values, for the command line and for Python."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfkd_cli.compression.job import DEFAULT_INTERVAL, Job
from dfkd_cli.config.times import parse_budget
from dfkd_cli.data.label_options import NO_LABEL_OPTIONS, LabelOptions
from dfkd_cli.data.reading import ReadOptions
from dfkd_cli.data.segmented import MaskOptions
from dfkd_cli.loading import LoadOptions
from dfkd_cli.machine.runtime import Precision
from dfkd_cli.training.checkpoint import Interval

NO_OPTIONS = MaskOptions()
SHORTEST_BUDGET_S = 1.0  # of a recipe
Settings = Mapping[str, Any] | Sequence[str]


def make_job(
    *,
    teacher: str | Path,
    load: LoadOptions,
    student: str,
    recipe: str | Path,
    out: str | Path,
    budget: str | float | None,
    settings: Settings,
    eval_data: str | Path | None,
    masks: MaskOptions = NO_OPTIONS,
    pool: str | Path | None,
    seed: int,
    device: str,
    precision: Precision,
    read_options: ReadOptions | None = None,
    command: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: Interval = DEFAULT_INTERVAL,
    calibration: bool = True,
    labels: LabelOptions = NO_LABEL_OPTIONS,
) -> Job:
    """Return the job. Without `command` it gets the `dfkd compress` command that repeats it.

    Raises UsageError for a budget that is not a time.
    """
    changes = overrides(settings)
    if budget is not None:
        changes.append(f"train.budget={parse_budget(budget, SHORTEST_BUDGET_S)}")
    job = Job(
        teacher=str(teacher),
        load=load,
        student=student,
        recipe=str(recipe),
        overrides=tuple(changes),
        out=Path(out),
        overwrite=overwrite,
        seed=seed,
        device=device,
        precision=precision,
        eval_data=None if eval_data is None else str(eval_data),
        masks=masks,
        pool=None if pool is None else Path(pool),
        read_options=read_options or ReadOptions(),
        command=command or "",
        resume=resume,
        checkpoint_every=checkpoint_every,
        calibration=calibration,
        labels=labels,
    )
    return job if command is not None else replace(job, command=repeat_command(job))


def overrides(settings: Settings) -> list[str]:
    """Return KEY=VALUE texts of a mapping, whose mappings are sections of the recipe, or of such texts."""
    if isinstance(settings, Mapping):
        return list(_flat(settings, ""))
    return [settings] if isinstance(settings, str) else list(settings)


def _flat(settings: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:  # JSON is YAML too; text stays without quotes, as people write it after --set
            yield f"{prefix}{key}={value if isinstance(value, str) else json.dumps(value, default=str)}"


def repeat_command(job: Job) -> str:
    """Return the `dfkd compress` command that does the same as the job."""
    words = ["dfkd", "compress", job.teacher, "--student", job.student, "--recipe", job.recipe, "--out", str(job.out)]
    words += [word for change in job.overrides for word in ("--set", change)]
    words += [] if job.eval_data is None else ["--eval", job.eval_data]
    words += job.masks.as_words()
    words += [] if job.pool is None else ["--pool", str(job.pool)]
    words += job.read_options.as_words()
    words += [] if job.calibration else ["--no-calibration"]
    words += ["--seed", str(job.seed), "--device", job.device, "--precision", job.precision]
    return shlex.join([*words, *job.labels.as_words(), *job.load.as_words()])
