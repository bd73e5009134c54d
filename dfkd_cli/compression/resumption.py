"""What a run takes over from an interrupted one, and what the user reads about it."""

import shlex
from dataclasses import replace

from dfkd_cli.compression.identity import Identity, differences
from dfkd_cli.compression.job import Job

_RESUME, _VARIABLE = "--resume", "DFKD_COMPRESS_RESUME="  # the option, and the variable that sets it


def continued(job: Job, earlier: Identity) -> Job:
    """Return the job with the measured precision of the interrupted run, and the command of a run without `--resume`.

    A second measurement could find another precision to be faster. The command is that of the run that goes on, not
    of the interrupted one: teacher and folder can have been moved in between.
    """
    precision = earlier.facts.get("precision", "auto") if job.precision == "auto" else job.precision
    return replace(job, precision=precision, command=_whole_command(job.command, str(job.out)))


def _whole_command(command: str, out: str) -> str:
    """Return a command that resumes a run as the command of the whole run, with `--out` in place of `--resume`."""
    words, kept = iter(shlex.split(command)), []
    for word in words:
        if word == _RESUME:
            next(words, None)
        elif not word.startswith((f"{_RESUME}=", _VARIABLE)):
            kept.append(word)
    variables = [word for word in kept if word.startswith("DFKD_COMPRESS_")]
    rest = [word for word in kept if word not in variables]
    named = any(word == "--out" or word.startswith(("--out=", "DFKD_COMPRESS_OUT=")) for word in kept)
    texts = [f"{name}={shlex.quote(value)}" for name, _, value in (word.partition("=") for word in variables)]
    return " ".join([*texts, shlex.join([*rest, *([] if named else ["--out", out])])])


def unfinished_notes(stopped_at: int | None, this: Identity, earlier: Identity | None) -> list[str]:
    """Return notes about an interrupted run: that it is discarded, or why its continuation may differ in bits.

    `stopped_at` is the step of its last checkpoint, None when there is no such run; `earlier` is its identity when it
    is resumed.
    """
    if earlier is None:
        return [] if stopped_at is None else [f"discarding the unfinished run, which reached step {stopped_at:,}"]
    notes = []
    before, now = (one.environment.get("processes", 1) for one in (earlier, this))
    if before != now:
        notes.append(
            f"{before} processes began this run, {now} continue it: the images are shared out anew and some random "
            "streams begin again, so the student will be as good, but not bit for bit the same"
        )
    changed = differences(earlier.environment | {"processes": now}, this.environment)
    return [*notes, f"the result may differ in the last bits: {'; '.join(changed)}"] if changed else notes


def resume_command(job: Job) -> str:
    """Return the shell command that continues the job."""
    return f"{job.command} --resume {shlex.quote(str(job.out))}"


def lost_advice(job: Job) -> str:
    """Return what to do after another process of the run was lost."""
    return f"to continue from the last checkpoint: {job.command if job.resume else resume_command(job)}"
