"""What a run takes over from an interrupted one, and what the user reads about it."""

import shlex
from dataclasses import replace

from dfkd_cli.compression.identity import Identity, differences
from dfkd_cli.compression.job import Job


def continued(job: Job, earlier: Identity) -> Job:
    """Return the job with the command and the measured precision of the interrupted run.

    A second measurement could find another precision to be faster.
    """
    precision = earlier.facts.get("precision", "auto") if job.precision == "auto" else job.precision
    return replace(job, precision=precision, command=earlier.command)


def unfinished_notes(stopped_at: int | None, this: Identity, earlier: Identity | None) -> list[str]:
    """Return notes about an interrupted run: that it is discarded, or why its continuation may differ in bits.

    `stopped_at` is the step of its last checkpoint, None when there is no such run; `earlier` is its identity when it
    is resumed.
    """
    if earlier is None:
        return [] if stopped_at is None else [f"discarding the unfinished run, which reached step {stopped_at:,}"]
    changed = differences(earlier.environment, this.environment)
    return [f"the result may differ in the last bits: {'; '.join(changed)}"] if changed else []


def resume_command(job: Job) -> str:
    """Return the shell command that continues the job."""
    return f"{job.command} --resume {shlex.quote(str(job.out))}"
